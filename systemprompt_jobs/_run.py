"""One attempt: call the function and turn whatever comes of it into a report."""

from __future__ import annotations

import operator
import traceback
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import structlog

from . import _parameters
from ._context import JobContext
from ._declare import JobResult, Retry, Skip, error_type_name
from .errors import ParameterError, text_of
from .model import Report, Run, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from ._context import Resources
    from .model import Job, Plan

MAX_MESSAGE = 10_000
"""Characters of a message or an error that are kept."""

MAX_TRACEBACK = 100_000
"""Characters of a traceback that are kept, from its end."""

_MAX_COUNT = 2**63 - 1


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


class _DeclaredFailure(Exception):  # noqa: N818  # it is no error, it carries a result
    """The job returned `JobResult.failure()`."""

    def __init__(self, result: JobResult) -> None:
        super().__init__(result.message)
        self.result = result


def attempt(plan: Plan, run: Run, resources: Resources, now: Callable[[], datetime]) -> Report:
    """Call the job's function for this run and report what came of it. Raises nothing."""
    started = now()
    try:
        outcome = _judge(_call(plan, run, resources), run)
    except _DeclaredFailure as failure:
        outcome = _judge(failure.result, run)
    except Skip as skip:
        outcome = _Outcome(State.SKIPPED, message=str(skip))
    except BaseException as error:  # noqa: BLE001  # sys.exit() ends a run, not the worker
        outcome = _failure(plan.job, error)
    return Report(
        outcome=outcome.state,
        started=started,
        finished=max(started, now()),
        message=_clip(outcome.message),
        processed=_count(outcome.processed),
        failed=_count(outcome.failed),
        error=_clip(outcome.error),
        traceback=_clip_start(outcome.traceback),
        error_types=outcome.error_types,
        retry_after=outcome.retry_after,
    )


def _call(plan: Plan, run: Run, resources: Resources) -> object:
    parameters = _parameters.validate(plan.job, run.parameters)
    with resources.container() as services:
        context = JobContext(
            run=run,
            parameters=MappingProxyType(parameters),
            enforce=run.enforce,
            config=MappingProxyType(plan.config),
            resources=resources,
            services=services,
        )
        arguments = (context,) if _parameters.takes_context(plan.job) else ()
        result = plan.job.function(*arguments, **parameters)
        if plan.job.is_async:
            import asyncio

            result = asyncio.run(result)
        if isinstance(result, JobResult) and not result.ok:
            raise _DeclaredFailure(result)  # so that services see that the job has failed
        return result


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


def _traceback_of(job: Job[..., Any], error: BaseException) -> str:
    """Return the traceback from the job's own code on, past ours and asyncio's."""
    code = getattr(job.function, "__code__", None)
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code is not code:
        entry = entry.tb_next
    return "".join(traceback.format_exception(type(error), error, entry or error.__traceback__))


def _clip(text: str) -> str:
    if len(text) <= MAX_MESSAGE:
        return _clean(text)
    return _clean(text[:MAX_MESSAGE]) + f" … (cut, {len(text):,} characters in all)"


def _clip_start(text: str) -> str:
    """Keep the end of a traceback, which says most."""
    if len(text) <= MAX_TRACEBACK:
        return _clean(text)
    return f"(cut, {len(text):,} characters in all) …\n" + _clean(text[-MAX_TRACEBACK:])


def _clean(text: str) -> str:
    """Replace what databases refuse in a text: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _count(value: Any) -> int | None:
    """Return a count of items as a database can keep it; None for what is no whole number."""
    try:
        count = operator.index(value)  # other libraries' integers too
    except TypeError:
        return None
    return max(-_MAX_COUNT, min(count, _MAX_COUNT))
