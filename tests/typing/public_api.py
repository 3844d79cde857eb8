"""What type checkers see of the public API; checked by `test_public_api.py`, never run."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, assert_type

from sqlalchemy import Engine

from systemprompt_jobs import (
    Job,
    JobContext,
    JobExtension,
    JobResult,
    Progress,
    Report,
    Retry,
    Run,
    Skip,
    every,
    hookimpl,
    job,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from systemprompt_jobs.interfaces import Attempt


@job
def bare(ctx: JobContext) -> int:
    return 1


@job(schedule="0 0 2 * * *", tags=["db"], aliases="former", parameters={"days": 3})
def typed(ctx: JobContext, *, days: int = 1, path: str) -> JobResult:
    return JobResult.success().with_message("x").with_stats(processed=days)


@job(max_attempts=3, retry_on=[OSError, "a.Error"], concurrency={"key": "api", "limit": 2})
def limited() -> None:
    raise Retry("busy", after=timedelta(minutes=5)) if limited.enabled else Skip("off")


@job(schedule=every(minutes=5))
async def download(*, url: str) -> str:
    return url


async def the_decorator_keeps_signatures(ctx: JobContext) -> None:
    assert_type(bare(ctx), int)
    assert_type(typed(ctx, path="x"), JobResult)
    assert_type(typed(ctx, days=2, path="x"), JobResult)
    assert_type(await download(url="x"), str)
    any_jobs: list[Job[..., Any]] = [bare, typed, download]
    assert any_jobs
    bare()  # type: ignore[call-arg]
    typed(ctx, days="2", path="x")  # type: ignore[arg-type]
    typed(ctx, 2, path="x")  # type: ignore[call-arg]
    bare.name = "other"  # type: ignore[misc]


def the_decorator_checks_its_arguments() -> None:
    job(schedule=5)  # type: ignore[call-overload]
    job(retry_on=5)  # type: ignore[call-overload]
    job(run_on_startup="yes")  # type: ignore[call-overload]
    job(shedule="0 * * * * *")  # type: ignore[call-overload]
    job("0 * * * * *")  # type: ignore[call-overload]


def a_job_has_typed_values() -> None:
    assert_type(bare.name, str)
    assert_type(bare.tags, tuple[str, ...])
    assert_type(bare.is_async, bool)


class Mailer: ...


def the_context_is_typed(ctx: JobContext) -> None:
    assert_type(ctx.db_pool(Engine), Engine)
    assert_type(ctx.db_pool(Engine, "reporting"), Engine)
    assert_type(ctx.get(Mailer), Mailer)
    assert_type(ctx.enforce, bool)
    assert_type(ctx.tick, datetime | None)
    assert_type(ctx.run, Run)
    ctx.log.info("halfway", rows=5)
    ctx.progress(1, 2.5, "halfway")
    ctx.progress("1")  # type: ignore[arg-type]
    assert_type(ctx.run.progress, Progress | None)
    ctx.enforce = True  # type: ignore[misc]
    ctx.parameters["a"] = 1  # type: ignore[index]


@hookimpl
def attempt_context(attempt: Attempt) -> AbstractContextManager[object]:
    attempt.annotate(trace_id="4bf92f35", sampled=True)
    return nullcontext()


class Extension(JobExtension):
    def jobs(self) -> Iterable[Job[..., Any]]:
        return [bare, typed, download]


@hookimpl
def run_failed(run: Run, report: Report) -> None:
    assert_type(run.job_id, str)
    assert_type(report.duration, timedelta)
    assert_type(run.duration, timedelta | None)


@hookimpl(specname="run_failed", trylast=True)
def second(run: Run) -> str:
    return run.job


def a_hook_keeps_its_signature(run: Run) -> None:
    assert_type(second(run), str)
    second("run")  # type: ignore[arg-type]
