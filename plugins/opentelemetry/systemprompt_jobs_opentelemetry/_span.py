"""The span of one attempt, made where its function runs."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import Status, StatusCode

from systemprompt_jobs import Skip
from systemprompt_jobs.errors import DeclaredFailure, RunCancelled, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from opentelemetry.trace import Span, Tracer

    from systemprompt_jobs import Run
    from systemprompt_jobs.interfaces import Attempt


class AttemptSpan(AbstractContextManager[None]):
    """Current while the function runs. Whatever OpenTelemetry raises is logged: no run fails of it.

    `tracer` is called when it begins, and `ended` with the run when it has ended.
    """

    def __init__(
        self, tracer: Callable[[], Tracer], attempt: Attempt, ended: Callable[[Run], None]
    ) -> None:
        self._tracer, self._attempt, self._ended = tracer, attempt, ended
        self._span: Span | None = None
        self._token: Any = None
        self._bound: Mapping[str, Any] = {}

    def __enter__(self) -> None:
        with _harmless(self._attempt.run):
            self._begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._span is not None:
            with _harmless(self._attempt.run):
                self._leave()
            with _harmless(self._attempt.run):
                _end(self._span, error)
                self._ended(self._attempt.run)

    def _begin(self) -> None:
        run = self._attempt.run
        span = self._tracer().start_span(run.job_id, attributes=_attributes(self._attempt))
        known = span.get_span_context()
        if not known.trace_flags.sampled:
            return  # there is no SDK, or its sampler has left this attempt out
        self._span = span
        self._token = context.attach(trace.set_span_in_context(span))
        ids = {
            "trace_id": trace.format_trace_id(known.trace_id),
            "span_id": trace.format_span_id(known.span_id),
        }
        self._bound = structlog.contextvars.bind_contextvars(**ids)
        self._attempt.annotate(**ids)

    def _leave(self) -> None:
        structlog.contextvars.reset_contextvars(**self._bound)
        if self._token is not None:
            context.detach(self._token)


@contextmanager
def _harmless(run: Run) -> Iterator[None]:
    try:
        yield
    except Exception:  # of the SDK, or of somebody's span processor
        log = structlog.get_logger("systemprompt_jobs")
        log.warning("span_failed", job=run.job_id, run=run.id, exc_info=True)


def _attributes(attempt: Attempt) -> dict[str, str | int | bool]:
    """Return what is known when it begins, so that samplers can see it."""
    run, function = attempt.run, attempt.job.function
    own: dict[str, str | int | bool] = {
        "job.id": run.job_id,
        "run.id": run.id,
        "run.trigger": str(run.trigger),
        "run.node": run.node,
        "run.enforce": run.enforce,
        "attempt.number": run.attempt,
        "attempt.max": run.max_attempts,
    }
    if run.tick is not None:
        own["run.tick"] = run.tick.isoformat()
    named = {f"systemprompt_jobs.{name}": value for name, value in own.items()}
    named["code.function.name"] = f"{function.__module__}.{function.__qualname__}"
    if (code := getattr(function, "__code__", None)) is not None:
        named["code.file.path"], named["code.line.number"] = code.co_filename, code.co_firstlineno
    return named


def _end(span: Span, error: BaseException | None) -> None:
    outcome = _outcome(error)
    span.set_attribute("systemprompt_jobs.attempt.outcome", outcome)
    if error is not None and outcome != "skipped":
        declared = isinstance(error, DeclaredFailure)  # then nothing was raised
        if not declared:
            span.record_exception(error)
        span.set_attribute("error.type", "declared" if declared else _type_name(error))
        span.set_status(Status(StatusCode.ERROR, str(error) if declared else text_of(error)))
    span.end()


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "succeeded"
    if isinstance(error, Skip):
        return "skipped"
    return "cancelled" if isinstance(error, RunCancelled | CancelledError) else "failed"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    own = kind.__qualname__
    return own if kind.__module__ == "builtins" else f"{kind.__module__}.{own}"
