"""One attempt: call the function and turn whatever comes of it into a report."""

from __future__ import annotations

import operator
import sys
import threading
import traceback
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import structlog

from . import _parameters
from ._context import JobContext
from ._declare import JobResult, Retry, Skip, error_type_name
from ._output import identity
from ._said import Said, clean, speaking
from .errors import DeclaredFailure, ParameterError, RunCancelled, text_of
from .model import Report, Run, State
from .secrets import masked_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime, timedelta
    from types import CodeType, FrameType, TracebackType

    from ._context import Resources
    from ._middleware import Middleware
    from .interfaces import Voice
    from .model import Job, Plan

MAX_MESSAGE = 10_000
"""Characters of a message or an error that are kept."""

MAX_TRACEBACK = 100_000
"""Characters of a traceback that are kept, from its end."""

_MAX_COUNT = 2**63 - 1

_making = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Outcome:
    state: State
    message: str = ""
    processed: int | None = None
    failed: int | None = None
    error: str = ""
    traceback: str = ""
    error_types: tuple[str, ...] = ()
    retry_after: timedelta | None = None


class Attempt:
    """One call of a job's function for a run: what executors know as `interfaces.Attempt`.

    `began` is called when the call begins, and `ended` receives its report. `said` takes what the
    function says meanwhile, and `middleware` is what plugins wrap around it. `refused` is told why
    the run cannot be sent.
    """

    def __init__(
        self,
        plan: Plan,
        run: Run,
        resources: Resources,
        now: Callable[[], datetime],
        began: Callable[[], None] = lambda: None,
        ended: Callable[[Report], None] = lambda _: None,
        said: Voice | None = None,
        middleware: Middleware | None = None,
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.run = run
        self.refused = refused
        self.job = plan.job
        self.config = plan.config
        self.ended = ended
        self._cancelled: threading.Event | None = None
        self._resources = resources
        self._now = now
        self._began = began
        self._thread: int | None = None
        self._middleware = middleware
        self.said: Voice = said or Said(run)

    @property
    def cancelled(self) -> threading.Event:
        """Set when the function should end. Made when first asked for: most attempts need none."""
        with _making:
            if self._cancelled is None:
                self._cancelled = threading.Event()
            return self._cancelled

    def _is_cancelled(self) -> bool:
        return self._cancelled is not None and self._cancelled.is_set()

    def interrupt(self) -> None:
        """Tell the function that it should end."""
        self.cancelled.set()

    def began(self) -> None:
        """Note that the function begins now."""
        self._began()

    def annotate(self, **values: str | float) -> None:
        """Note something that is kept with the attempt."""
        self.said.annotate(values)

    def call(self) -> Report:
        """Call the function and report what came of it. Raises nothing."""
        return copy_context().run(self._call)  # what the job binds there ends with it

    def _call(self) -> Report:
        if self.job.is_async:
            import asyncio

            return asyncio.run(self.call_async())
        with self._verdict() as verdict, self._arguments() as (context, parameters):
            verdict.judge(self.job.function(*context, **parameters))
        return verdict.report

    async def call_async(self) -> Report:
        """Call or await the function and report what came of it. Raises nothing."""
        with self._verdict() as verdict, self._arguments() as (context, parameters):
            result = self.job.function(*context, **parameters)
            verdict.judge(await result if self.job.is_async else result)
        return verdict.report

    def stack(self) -> str:
        """Return where the function is right now, empty where its thread does not show it."""
        code = getattr(self.job.function, "__code__", None)
        frames = _frames_up_to(code, sys._current_frames().get(self._thread or 0))  # noqa: SLF001
        lines = traceback.StackSummary.extract((f, f.f_lineno) for f in reversed(frames)).format()
        return "".join(["Still at work (most recent call last):\n", *lines]) if frames else ""

    def _verdict(self) -> _Verdict:
        self._thread = threading.get_ident()
        self._began()
        return _Verdict(self.job, self.run, self._now, self._is_cancelled)

    @contextmanager
    def _arguments(self) -> Iterator[tuple[tuple[JobContext, ...], Mapping[str, Any]]]:
        """Yield what the function takes; middleware and services of the run end with the block.

        The services are inside, so that middleware sees a COMMIT of theirs that fails.
        """
        if self._is_cancelled():
            raise RunCancelled("it was told to end before it began")
        speaking.set(self.said)
        structlog.contextvars.bind_contextvars(**identity(self.run))
        with ExitStack() as stack:
            if self._middleware is not None:
                self._middleware.around(self, stack)
            parameters = _parameters.validate(self.job, self.run.parameters)
            if not _parameters.takes_context(self.job):
                yield (), parameters
                return
            context = JobContext(
                run=self.run,
                parameters=MappingProxyType(parameters),
                enforce=self.run.enforce,
                config=MappingProxyType(self.config),
                resources=self._resources,
                services=stack.enter_context(self._resources.container()),
                interrupted=self.cancelled,
                said=self.said,
            )
            yield (context,), parameters


class _Verdict:
    """What an attempt came to: its block swallows every error and makes the report of it."""

    report: Report

    def __init__(
        self,
        job: Job[..., Any],
        run: Run,
        now: Callable[[], datetime],
        cancelled: Callable[[], bool],
    ) -> None:
        self._job, self._run, self._now, self._cancelled = job, run, now, cancelled
        self._started = now()
        self._outcome = _Outcome(State.SUCCEEDED)

    def judge(self, result: object) -> None:
        """Take what the function returned."""
        self._outcome = _judge(result, self._run)
        if isinstance(result, JobResult) and not result.ok:
            raise DeclaredFailure(result.message)  # so that services see that the job has failed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        outcome = self._outcome
        if error is not None and not isinstance(error, DeclaredFailure):
            outcome = _failure(self._job, error)  # sys.exit() ends a run too, not the worker
            if isinstance(error, Skip):
                outcome = _Outcome(State.SKIPPED, message=str(error))
            elif self._cancelled() and _is_cancellation(error):
                where = outcome.traceback  # of one that is over its timeout, this is shown
                outcome = _Outcome(State.CANCELLED, message=str(error), traceback=where)
        self.report = Report(
            outcome=outcome.state,
            started=self._started,
            finished=max(self._started, self._now()),
            message=_clip(outcome.message),
            processed=_count(outcome.processed),
            failed=_count(outcome.failed),
            error=_clip(outcome.error),
            traceback=_clip_start(outcome.traceback),
            error_types=outcome.error_types,
            retry_after=outcome.retry_after,
        )
        return True


def _judge(result: object, run: Run) -> _Outcome:
    if result is None:
        return _Outcome(State.SUCCEEDED)
    if isinstance(result, str):
        return _Outcome(State.SUCCEEDED, message=result)
    if isinstance(result, JobResult):
        return _Outcome(
            State.SUCCEEDED if result.ok else State.FAILED,
            message=str(result.message),
            processed=result.processed,
            failed=result.failed,
            error="" if result.ok else str(result.message) or "the job returned a failure",
        )
    kind = type(result).__name__
    log = structlog.get_logger("systemprompt_jobs")
    log.warning("result_ignored", job=run.job_id, run=run.id, type=kind)
    return _Outcome(
        State.SUCCEEDED, message=f"returned {kind}, ignored: return None, text or a JobResult"
    )


def _failure(job: Job[..., Any], error: BaseException) -> _Outcome:
    types = tuple(error_type_name(kind) for kind in type(error).__mro__[:-1])
    if isinstance(error, ParameterError):
        return _Outcome(State.FAILED, error=str(error), error_types=types)
    return _Outcome(
        State.FAILED,
        error=text_of(error),
        traceback=_traceback_of(job, error),
        error_types=types,
        retry_after=error.after if isinstance(error, Retry) else None,
    )


def _is_cancellation(error: BaseException) -> bool:
    from asyncio import CancelledError

    return isinstance(error, RunCancelled | CancelledError)


def _frames_up_to(code: CodeType | None, frame: FrameType | None) -> list[FrameType]:
    """Return the frames from the innermost up to that of `code`; none if it is not among them."""
    frames = []
    while frame is not None:
        frames.append(frame)
        if frame.f_code is code:
            return frames
        frame = frame.f_back
    return []


def _traceback_of(job: Job[..., Any], error: BaseException) -> str:
    """Return the traceback from the job's own code on, past ours and asyncio's."""
    code = getattr(job.function, "__code__", None)
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code is not code:
        entry = entry.tb_next
    return "".join(traceback.format_exception(type(error), error, entry or error.__traceback__))


def _clip(text: str) -> str:
    if not text:
        return text
    if len(text) <= MAX_MESSAGE:
        return masked_text(clean(text))
    return masked_text(clean(text[:MAX_MESSAGE])) + f" … (cut, {len(text):,} characters in all)"


def _clip_start(text: str) -> str:
    """Keep the end of a traceback, which says most."""
    if not text:
        return text
    if len(text) <= MAX_TRACEBACK:
        return masked_text(clean(text))
    return f"(cut, {len(text):,} characters in all) …\n" + masked_text(clean(text[-MAX_TRACEBACK:]))


def _count(value: Any) -> int | None:
    """Return a count of items as a database can keep it; None for what is no whole number."""
    if value is None:
        return None
    try:
        count = operator.index(value)  # other libraries' integers too
    except TypeError:
        return None
    return max(-_MAX_COUNT, min(count, _MAX_COUNT))
