"""Schedules: a cron text or an interval in, exact ticks in UTC out.

`_text` reads a cron text into `Fields`; `_times` and `_days` turn those into bit tables of the
times of a day and the days of a month; `_zones` cuts a time zone into stretches of one offset;
`_cron` walks tables over stretches. `_every` needs none of this.
"""

from __future__ import annotations

from ._cron import Cron, cron, parse
from ._every import every
from ._splay import splay
from ._zones import check_zone

__all__ = ["Cron", "check_zone", "cron", "every", "parse", "splay"]
