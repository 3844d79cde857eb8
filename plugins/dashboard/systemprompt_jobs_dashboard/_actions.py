"""What operators do: log in, run, retry, cancel, pause, resume: by the role and the form's token."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from systemprompt_jobs import Duration
from systemprompt_jobs.errors import UsageError
from systemprompt_jobs.model import State

from ._access import SESSION_S, cleaned
from ._catalogue import Chosen
from ._guard import COOKIE, check_form, check_may_act, dashboard_of, read_fields, read_form, root_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from ._guard import Visitor

_NOTE_LENGTH, _NAMED = 500, 5


def who(visitor: Visitor) -> str:
    """Return who acts, as the audit has it."""
    return f"dashboard:{visitor.name or 'operator'}"


async def run(request: Request) -> Response:
    """Have a scheduler run a job now."""
    visitor: Visitor = request.scope["visitor"]
    session = check_may_act(visitor, await read_form(request))
    runtime, job_id = dashboard_of(request).runtime, request.path_params["job"]
    (found,) = await run_in_threadpool(runtime.submit, job_id, who=who(visitor))
    session.flash.append(f"{job_id} runs as run {found.id}")
    return _back(request, f"/runs/{found.id}")


async def retry(request: Request) -> Response:
    """Have a scheduler run the job of a run again, with the same parameters."""
    visitor: Visitor = request.scope["visitor"]
    session = check_may_act(visitor, await read_form(request))
    runtime, number = dashboard_of(request).runtime, request.path_params["run"]
    found = await run_in_threadpool(runtime.retry, number, detach=True, who=who(visitor))
    session.flash.append(f"run {number} is repeated as run {found.id}")
    return _back(request, f"/runs/{found.id}")


async def cancel(request: Request) -> Response:
    """Cancel a run, wherever it is."""
    visitor: Visitor = request.scope["visitor"]
    form = await read_form(request)
    session = check_may_act(visitor, form)
    runtime, number = dashboard_of(request).runtime, request.path_params["run"]
    found = await run_in_threadpool(
        runtime.cancel, number, note=form.get("note", "").strip()[:_NOTE_LENGTH], who=who(visitor)
    )
    over = found.state is State.CANCELLED
    session.flash.append(f"run {number} is {'cancelled' if over else 'told to end'}")
    return _back(request, f"/runs/{number}")


async def pause(request: Request) -> Response:
    """Pause a job, with a note and an end."""
    visitor: Visitor = request.scope["visitor"]
    form = await read_form(request)
    session = check_may_act(visitor, form)
    dashboard, job_id = dashboard_of(request), request.path_params["job"]
    until = _end(form.get("until", "").strip(), dashboard.runtime.settings.timezone)
    note = form.get("note", "").strip()[:_NOTE_LENGTH]
    await run_in_threadpool(
        dashboard.runtime.pause, job_id, until=until, note=note, who=who(visitor)
    )
    session.flash.append(f"{job_id} is paused")
    return _back(request, f"/jobs/{quote(job_id)}")


async def resume(request: Request) -> Response:
    """End the pause of a job."""
    visitor: Visitor = request.scope["visitor"]
    session = check_may_act(visitor, await read_form(request))
    dashboard, job_id = dashboard_of(request), request.path_params["job"]
    found = await run_in_threadpool(dashboard.runtime.resume, job_id, who=who(visitor))
    session.flash.append(f"{job_id} is resumed" if found else f"{job_id} was not paused")
    return _back(request, f"/jobs/{quote(job_id)}")


async def several(request: Request) -> Response:
    """Pause or resume the jobs that are checked, or all that the address's search finds."""
    visitor: Visitor = request.scope["visitor"]
    fields = await read_fields(request)
    form = dict(fields)
    session = check_may_act(visitor, form)
    runtime, catalogue = dashboard_of(request).runtime, dashboard_of(request).catalogue
    ids = [value for name, value in fields if name == "job"]
    if form.get("which") == "found":
        ids = await run_in_threadpool(catalogue.find, Chosen.by(request))
    if not ids:
        raise UsageError("no job is chosen: check some, or take all that were found")
    note, by = form.get("note", "").strip()[:_NOTE_LENGTH], who(visitor)
    if form.get("act") == "resume":
        resumed = await run_in_threadpool(runtime.resume, *ids, note=note, who=by)
        session.flash.append(f"resumed: {_some(resumed)}")
    else:
        until = _end(form.get("until", "").strip(), runtime.settings.timezone)
        await run_in_threadpool(runtime.pause, *ids, until=until, note=note, who=by)
        session.flash.append(f"paused: {_some(ids)}")
    return _back(request, f"/?{request.url.query}")


def _some(ids: Sequence[str]) -> str:
    """Name a few jobs, and say how many more there are."""
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{', '.join(ids[:_NAMED])}{more}" if ids else "none, none was paused"


def _end(text: str, zone: str) -> datetime | timedelta | None:
    """Return when a pause ends: a time in the scheduler's zone, or a duration. Raises UsageError."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return (found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    try:
        return TypeAdapter[timedelta](Duration).validate_python(text)
    except ValidationError:
        raise UsageError(
            f"until {text!r}: write a time such as 2026-03-29T01:00 or a duration such as 2h"
        ) from None


async def login(request: Request) -> Response:
    """Show the form of the token, and take it."""
    dashboard = dashboard_of(request)
    if request.method != "POST":
        return dashboard.render(request, "login.html", said="")
    form = await read_form(request)
    client = request.client.host if request.client else ""
    if wait := dashboard.pace.wait_s(client):
        said = f"too many wrong tokens: try again in {wait} s"
        answer = dashboard.render(request, "login.html", HTTPStatus.TOO_MANY_REQUESTS, said=said)
        answer.headers["Retry-After"] = str(wait)
        return answer
    role = dashboard.access.role_of(form.get("token", ""))
    if not role:
        dashboard.pace.failed(client)
        said = "this is not the token"
        return dashboard.render(request, "login.html", HTTPStatus.FORBIDDEN, said=said)
    secret = dashboard.sessions.begin(role, cleaned(form.get("name", "")))
    dashboard.sessions.end(request.cookies.get(COOKIE, ""))
    answer = _back(request, "/")
    answer.set_cookie(
        COOKIE,
        secret,
        max_age=SESSION_S,
        path=root_of(request.scope) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


async def logout(request: Request) -> Response:
    """End the session."""
    check_form(request.scope["visitor"], await read_form(request))
    dashboard_of(request).sessions.end(request.cookies.get(COOKIE, ""))
    answer = _back(request, "/")
    answer.delete_cookie(COOKIE, path=root_of(request.scope) or "/")
    return answer


def _back(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(f"{root_of(request.scope)}{path}", HTTPStatus.SEE_OTHER)
