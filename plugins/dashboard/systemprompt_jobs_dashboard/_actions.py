"""What operators do: log in, run now, pause, resume. Each checks the role and the form's token."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote
from zoneinfo import ZoneInfo

import structlog
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from systemprompt_jobs import Duration
from systemprompt_jobs.errors import JobsError, UsageError
from systemprompt_jobs.model import Trigger

from ._access import SESSION_S, cleaned
from ._guard import COOKIE, check_may_act, read_form, root_of
from ._pages import dashboard_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from systemprompt_jobs import Run, Runtime

    from ._guard import Visitor

_RECORDED_S, _LOOK_S = 5.0, 0.05
_NOTE_LENGTH = 500


class Runner:
    """Starts runs by hand and does not wait for their ends."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._one = threading.Lock()

    def run(self, job_id: str, who: str) -> int | None:
        """Have a job run in a thread; return its run's number, None while it is not recorded.

        Raises what `Runtime.run` raises before anything has run.
        """
        with self._one:  # a runtime joins at its first run, and only once
            before = max((run.id for run in self._manual(job_id)), default=0)
            ended = threading.Event()
            failed: list[JobsError] = []
            threading.Thread(
                target=self._work,
                args=(job_id, who, failed, ended),
                name="dashboard-run",
                daemon=True,
            ).start()
            for _ in range(int(_RECORDED_S / _LOOK_S)):
                over = ended.wait(_LOOK_S)
                if failed:
                    raise failed[0]
                new = [run.id for run in self._manual(job_id) if run.id > before]
                if new or over:
                    return min(new, default=None)
        return None

    def _work(self, job_id: str, who: str, failed: list[JobsError], ended: threading.Event) -> None:
        try:
            self._runtime.run(job_id, who=who)
        except JobsError as error:
            failed.append(error)
            structlog.get_logger("systemprompt_jobs").warning(
                "dashboard_run_failed", job=job_id, reason=str(error)
            )
        finally:
            ended.set()

    def _manual(self, job_id: str) -> list[Run]:
        runs = self._runtime.history(job=job_id, limit=10)
        return [run for run in runs if run.trigger is Trigger.MANUAL]


def who(visitor: Visitor) -> str:
    """Return who acts, as the audit has it."""
    return f"dashboard:{visitor.name or 'operator'}"


async def run(request: Request) -> Response:
    """Run a job now."""
    visitor: Visitor = request.scope["visitor"]
    session = check_may_act(visitor, await read_form(request))
    dashboard, job_id = dashboard_of(request), request.path_params["job"]
    plan = dashboard.runtime.find(job_id)
    if plan.problem is not None:
        raise UsageError(f"the job {plan.id} is degraded: {plan.problem}")
    number = await run_in_threadpool(dashboard.runner.run, plan.id, who(visitor))
    if number is None:
        session.flash.append(f"{plan.id} was asked to run")
        return _back(request, f"/jobs/{quote(plan.id)}")
    session.flash.append(f"{plan.id} runs as run {number}")
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
    form, visitor = await read_form(request), request.scope["visitor"]
    if visitor.session is None or form.get("csrf") != visitor.session.csrf:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this form is not of your session: reload it")
    dashboard_of(request).sessions.end(request.cookies.get(COOKIE, ""))
    answer = _back(request, "/")
    answer.delete_cookie(COOKIE, path=root_of(request.scope) or "/")
    return answer


def _back(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(f"{root_of(request.scope)}{path}", HTTPStatus.SEE_OTHER)
