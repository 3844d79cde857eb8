"""The `every:` syntax: intervals as text, for configuration files.

::

    every: 300s
    every: 5 minutes
    every: 1h 30m from 2026-01-01T00:00:00Z
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from systemprompt_jobs import every, hookimpl
from systemprompt_jobs.errors import ScheduleError

if TYPE_CHECKING:
    from systemprompt_jobs.interfaces import Schedule

_SCHEME = "every:"
_LONGEST = 256
_PART = re.compile(
    r"\s*([0-9]{1,9})\s*(?:(d|days?)|(h|hours?)|(m|mins?|minutes?)|(s|secs?|seconds?))(?![a-z])",
    re.IGNORECASE,
)


@hookimpl
def parse_schedule(text: str) -> Schedule | None:
    """Parse `every: 5 minutes`, with an anchor after `from` if given."""
    if not text.startswith(_SCHEME):
        return None
    interval, anchored, anchor = text.removeprefix(_SCHEME).partition(" from ")
    parts = list(_PART.finditer(interval))
    if len(text) > _LONGEST or not parts or _PART.sub("", interval).strip():
        raise ScheduleError(
            f"schedule {text!r:.80}: the interval {interval.strip()!r:.40} is not understood; "
            "write e.g. 'every: 300s', 'every: 5 minutes' or 'every: 1h 30m'"
        )
    seconds = sum(int(part[1]) * size for part in parts for size in _sizes(part))
    return every(seconds=seconds, anchor=_anchor(text, anchor) if anchored else None)


def _sizes(part: re.Match[str]) -> list[int]:
    return [
        size for unit, size in zip(part.groups()[1:], (86400, 3600, 60, 1), strict=True) if unit
    ]


def _anchor(text: str, anchor: str) -> datetime:
    try:
        return datetime.fromisoformat(anchor.strip())
    except ValueError:
        raise ScheduleError(
            f"schedule {text!r:.80}: the start {anchor.strip()!r:.40} is not a time; "
            "write it like 2026-01-01T00:00:00Z"
        ) from None
