"""The hooks: each notes what happened, and leaves the rest to a thread of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from systemprompt_jobs import JobExtension, hookimpl

from ._alert import Alert, Kind, clean, of_missed, of_run
from ._clock import Clock, SystemClock
from ._config import Config, read
from ._memory import Memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from systemprompt_jobs import Report, Run, Runtime
    from systemprompt_jobs.model import Node

    from ._worker import Worker

_DRAIN_S = 4.0
"""Below the 5 s that observers have in all when a scheduler stops."""


class Alerts(JobExtension):
    """One per `Runtime`. It sends from `scheduler_started` to `scheduler_stopped`.

    A method that bears a hook's name is a hook, see `JobExtension`: `run_timed_out` is one
    where the core has it.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._config = Config()
        self._memory = Memory(self._config.repeat, self._config.database_after)
        self._runtime: Runtime | None = None
        self._worker: Worker | None = None

    def configured(self, settings: Mapping[str, Any], runtime: Runtime) -> None:
        """Keep the section. Raises ConfigurationError."""
        self._config = read(settings, runtime.collection)
        self._memory = Memory(self._config.repeat, self._config.database_after)
        self._runtime = runtime

    def scheduler_started(self, node: Node) -> None:
        """Begin to send, where there is a channel."""
        if self._runtime is None or not self._config.channels:
            return
        from ._channels import open_channel  # here, so that commands load no mail and no TLS
        from ._history import History
        from ._outbox import Outbox
        from ._worker import Worker

        tags = {job.id: frozenset(job.job.tags) for job in self._runtime.collection.jobs}
        channels = {name: open_channel(own) for name, own in self._config.channels.items()}
        outbox = Outbox(self._config, channels, tags, self._clock)
        history = History(self._runtime, node.id)
        self._worker = Worker(self._config, self._memory, outbox, history, self._clock)
        self._worker.start()

    @hookimpl(trylast=True)
    def scheduler_stopped(self) -> None:
        """Send what waits, for a few seconds; other observers go first."""
        if self._worker is not None:
            self._worker.stop(_DRAIN_S)
            self._worker = None

    def run_failed(self, run: Run, report: Report) -> None:
        """Say so."""
        self._happened(of_run(Kind.FAILED, run, report, self._clock.now()))

    def run_timed_out(self, run: Run, report: Report) -> None:
        """Say so."""
        self._happened(of_run(Kind.TIMED_OUT, run, report, self._clock.now()))

    def run_lost(self, run: Run) -> None:
        """Say so."""
        self._happened(of_run(Kind.LOST, run, None, self._clock.now()))

    def tick_missed(self, run: Run) -> None:
        """Say so."""
        self._happened(of_missed(run, self._clock.now()))

    def run_succeeded(self, run: Run) -> None:
        """Say so if something was wrong with the job."""
        if self._worker is not None:
            now = run.finished or self._clock.now()
            mono = self._clock.monotonic()
            self._worker.put(self._memory.succeeded(run.job_id, now, mono))

    def database_unavailable(self, reason: str) -> None:
        """Say so if it lasts."""
        subject = "a scheduler cannot use its database"
        alert = Alert(Kind.DATABASE, subject, self._clock.now(), details=clean(reason))
        self._memory.database_gone(alert, self._clock.monotonic())

    def database_recovered(self, after: timedelta) -> None:
        """Say so if the outage was told."""
        if self._worker is not None:
            self._worker.put(self._memory.database_back(self._clock.now(), after))

    def _happened(self, alert: Alert) -> None:
        if self._worker is not None:  # a run by hand is watched by who started it
            self._worker.put(self._memory.happened(alert, self._clock.monotonic()))
