"""What a scheduler asks the history: of its own past, and of what others did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from systemprompt_jobs.model import State

from ._alert import Alert, Kind, of_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from systemprompt_jobs import Runtime

    from ._config import Config

_BAD = {State.FAILED: Kind.FAILED, State.LOST: Kind.LOST, "timed_out": Kind.TIMED_OUT}


class History:
    """The public queries of a runtime. Each raises StoreError while there is no database."""

    def __init__(self, runtime: Runtime, node: str) -> None:
        self._runtime = runtime
        self._node = node

    def deadlines(self, config: Config) -> dict[str, timedelta]:
        """Return how long each enabled job may go without a success."""
        plans = (plan for plan in self._runtime.plans if plan.enabled)
        return {plan.id: age for plan in plans if (age := config.deadline(plan.id))}

    def troubled(self, now: datetime) -> Iterator[Alert]:
        """Yield what is to be said of each job whose newest run came to a bad end."""
        for job in self._runtime.jobs():
            run = job.last_run
            if run is not None and run.state in _BAD:
                yield of_run(_BAD[run.state], run, None, now)

    def last_success(self, job: str) -> datetime | None:
        """Return when the job last succeeded, on any node or by hand."""
        runs = self._runtime.history(job=job, states=[State.SUCCEEDED], limit=1)
        return runs[0].finished if runs else None

    def paused(self) -> set[str]:
        """Return the jobs that are paused."""
        return set(self._runtime.pauses())

    def speaks(self) -> bool:
        """Return whether this scheduler speaks for all: the oldest does, of what all can see."""
        live = [node.id for node in self._runtime.nodes() if node.state == "live"]
        return not live or live[0] == self._node
