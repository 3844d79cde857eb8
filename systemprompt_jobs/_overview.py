"""What a runtime can tell about itself: frozen values for commands and pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._model import EMPTY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ._model import Plan, Problem, Run


@dataclass(frozen=True, slots=True)
class JobOverview:
    """A job's plan, its next tick (None: it has none) and its newest run, if any."""

    plan: Plan
    next_tick: datetime | None
    last_run: Run | None


@dataclass(frozen=True, slots=True)
class NodeOverview:
    """A live scheduler node; `heartbeat` is when it last said so."""

    id: str
    version: str
    workers: int
    started: datetime
    heartbeat: datetime


@dataclass(frozen=True, slots=True)
class SchedulerOverview:
    """The scheduler at a glance.

    `database` is the URL without its password. `counts` are the runs created in the last
    24 hours by state. `running` and `troubled` (failed, lost, missed …) are newest first.
    """

    root: str
    database: str
    enabled: bool
    nodes: tuple[NodeOverview, ...]
    jobs: tuple[JobOverview, ...]
    running: tuple[Run, ...]
    troubled: tuple[Run, ...]
    counts: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    degraded: tuple[Problem, ...] = ()
