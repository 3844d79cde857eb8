"""Runs by hand that a running scheduler shall take: pending, and of no node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._rows import manual_key, run_values
from ._store import control as control_rows
from ._store import runs as run_rows
from .model import State, Trigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from ._store import Store, StoreClock
    from .model import Plan, Run


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that somebody asks for; `parent` is the id of the run that it repeats.

    `tick` is the instant that the function is told, if any.
    """

    plan: Plan
    parameters: Mapping[str, Any]
    enforce: bool
    parent: int | None = None
    tick: datetime | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The columns that say so."""
        return {
            "parameters": dict(self.parameters),
            "enforce": self.enforce,
            "parent": self.parent,
            "tick_at": self.tick,
        }

    @property
    def action(self) -> str:
        """What the audit calls it."""
        return "run" if self.parent is None else "retry"


def hand_over(store: Store, clock: StoreClock, wanted: Sequence[Wanted], who: str) -> list[Run]:
    """Record the runs, all or none, for any scheduler that has the job to take."""
    with store.write() as connection:
        now = clock.read(connection)
        control_rows.add_audits(
            connection, [(now, who, one.action, one.plan.id, "") for one in wanted]
        )
        return run_rows.add(
            connection,
            [
                run_values(one.plan, manual_key(), Trigger.MANUAL, now)
                | {"state": State.PENDING}
                | one.values
                for one in wanted
            ],
        )
