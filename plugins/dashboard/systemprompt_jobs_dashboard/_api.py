"""The JSON API: the answers of the commands, word for word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from systemprompt_jobs.builtin import answers
from systemprompt_jobs.errors import UsageError

from ._guard import dashboard_of
from ._run import find_run

if TYPE_CHECKING:
    from starlette.requests import Request

_MOST, _DIGITS = 1000, 18


def answer(value: dict[str, Any], status: int = 200) -> Response:
    """Return an answer of the API."""
    return Response(answers.dumps(value) + "\n", status, media_type="application/json")


def routes() -> list[Route]:
    """Return the API's routes; all of them only read."""
    return [
        Route("/jobs", _jobs),
        Route("/jobs/{job}", _job),
        Route("/status", _status),
        Route("/history", _history),
        Route("/runs/{run:int}", _run),
        Route("/nodes", _nodes),
        Route("/stats", _stats),
        Route("/audit", _audit),
    ]


def _jobs(request: Request) -> Response:
    return answer(answers.jobs(dashboard_of(request).runtime))


def _job(request: Request) -> Response:
    runtime = dashboard_of(request).runtime
    return answer(answers.job(runtime, runtime.find(request.path_params["job"])))


def _status(request: Request) -> Response:
    return answer(answers.status(dashboard_of(request).runtime))


def _history(request: Request) -> Response:
    asked = request.query_params
    found = dashboard_of(request).runtime.history(
        job=asked.get("job"),
        states=asked.getlist("state") or None,
        tag=asked.get("tag"),
        since=_instant(request, "since"),
        until=_instant(request, "until"),
        node=asked.get("node"),
        text=asked.get("grep"),
        before=_number(request, "before"),
        limit=min(_number(request, "number") or 20, _MOST),
    )
    return answer(answers.history(found))


def _run(request: Request) -> Response:
    runtime = dashboard_of(request).runtime
    return answer(answers.run(runtime, find_run(runtime, request.path_params["run"])))


def _nodes(request: Request) -> Response:
    return answer(answers.nodes(dashboard_of(request).runtime.nodes()))


def _stats(request: Request) -> Response:
    days = _number(request, "days") or 7
    jobs = request.query_params.getlist("job")
    since = timedelta(days=min(days, 3650))
    return answer(answers.stats(dashboard_of(request).runtime.stats(*jobs, since=since)))


def _audit(request: Request) -> Response:
    limit = min(_number(request, "limit") or 20, _MOST)
    return answer(answers.audit(dashboard_of(request).runtime, limit, _number(request, "before")))


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text)):
        raise UsageError(f"{name}={text}: write a whole number from 1 on")
    return int(text)


def _instant(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{name}={text}: write a time such as 2026-03-29T01:00") from None
