"""Says by webhook and mail when jobs fail, recover, are missed or lost, or do not succeed.

`_config` reads the section `scheduler.extensions.alerts`, `_alert` words what happened,
`_memory` decides what is worth saying, `_outbox` when it is sent, `_channels` send it, `_worker`
is the thread they work on, and `_plugin` the hooks.
"""

from __future__ import annotations

from ._plugin import Alerts

__all__ = ["Alerts"]
