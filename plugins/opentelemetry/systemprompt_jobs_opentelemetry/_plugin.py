"""The plugin: a span around each attempt, and each lifecycle hook moves its metrics."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from systemprompt_jobs import hookimpl

from ._flush import Flusher

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

    from systemprompt_jobs import Report, Run
    from systemprompt_jobs.interfaces import Attempt
    from systemprompt_jobs.model import Node

    from ._metrics import Instruments

SCOPE = "systemprompt_jobs"


class Telemetry:
    """The plugin. The providers are those of the process unless given.

    OpenTelemetry is imported at the first run: most commands are over before.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._flusher = Flusher(self._flush)

    @cached_property
    def _tracer(self) -> Tracer:
        from opentelemetry import trace

        return trace.get_tracer(SCOPE, tracer_provider=self._tracer_provider)

    @cached_property
    def _instruments(self) -> Instruments:
        from opentelemetry import metrics

        from ._metrics import Instruments

        return Instruments(metrics.get_meter(SCOPE, meter_provider=self._meter_provider))

    def _flush(self) -> None:
        from opentelemetry import trace

        provider = self._tracer_provider or trace.get_tracer_provider()
        flush = getattr(provider, "force_flush", None)  # of the SDK: the API has none
        if flush is not None:
            flush()

    # --- where functions run ---

    @hookimpl(tryfirst=True)
    def attempt_context(self, attempt: Attempt) -> AbstractContextManager[None]:
        """Put a span around it, outside of what other plugins do."""
        from ._span import AttemptSpan

        return AttemptSpan(lambda: self._tracer, attempt, ended=self._ended)

    def _ended(self, run: Run) -> None:
        """Have spans exported soon where the process may be killed before it would do so."""
        if run.node.split(":")[1:2] != [str(os.getpid())]:
            self._flusher.soon()

    # --- on the thread of the observers ---

    @hookimpl
    def scheduler_stopped(self, node: Node) -> None:
        """Note that nothing of it runs any more."""
        self._instruments.end_all(node.id)

    @hookimpl
    def tick_skipped(self, run: Run) -> None:
        """Count them: the ticks of a pause are one call."""
        self._instruments.skip(run)

    @hookimpl
    def tick_missed(self, run: Run) -> None:
        """Count them: a stretch is one call."""
        self._instruments.miss(run)

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Note that it runs, and how late it is."""
        self._instruments.start(run)

    @hookimpl
    def run_retrying(self, run: Run, report: Report) -> None:
        """Count it; what waits does not run. An attempt that was lost ran elsewhere."""
        if report.outcome != "lost":
            self._instruments.end(run)
        self._instruments.retry(run)

    @hookimpl
    def run_finished(self, run: Run, report: Report | None) -> None:
        """Count it by its outcome, with the duration of its last attempt."""
        self._instruments.end(run)
        self._instruments.finish(run, report)

    @hookimpl
    def run_cancelled(self, run: Run) -> None:
        """Count what was given up before it began: it has no `run_finished`."""
        if run.attempt == 0:
            self._instruments.finish(run, None)

    @hookimpl
    def run_fenced(self, run: Run) -> None:
        """Note that it runs no more; its end is counted by whoever took it."""
        self._instruments.end(run)
