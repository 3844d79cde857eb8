"""The ASGI application: what every page needs, the routes, and what an error looks like."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from systemprompt_jobs import __version__, errors
from systemprompt_jobs.builtin.words import schedule_words

from . import _actions, _api, _events, _job, _list, _pages, _run, _timeline, _words
from ._access import Access, Pace, Sessions
from ._catalogue import Catalogue
from ._guard import Guard, path_of, root_of
from ._later import Later

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from systemprompt_jobs import Runtime


_FIGURES_S, _AHEAD_S = 10.0, 300.0


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What the pages of one application share: `request.app.state.dashboard`."""

    runtime: Runtime
    access: Access
    sessions: Sessions
    pace: Pace
    templates: Environment
    changes: _events.Changes
    catalogue: Catalogue
    figures: Later[_list.Figures]
    ahead: Later[_timeline.Ahead]

    def render(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page; `values` are what its template shows."""
        visitor = request.scope["visitor"]
        session = visitor.session
        flash = list(session.flash) if session else []
        if session:
            session.flash.clear()
        text = self.templates.get_template(template).render(
            **values,
            visitor=visitor,
            csrf=session.csrf if session else "",
            flash=flash,
            root=root_of(request.scope),
            here=path_of(request.scope),
            can_log_in=bool(self.access.token or self.access.view_token),
        )
        return HTMLResponse(text, status)


def create_app(runtime: Runtime, access: Access | None = None) -> Starlette:
    """Return the dashboard of `runtime` as an ASGI application, to be served or mounted.

    `runtime` may be a running scheduler or not; whoever made it starts and stops it. Without
    `access` the pages can be seen from this machine only, and nobody can act.
    """
    access = access or Access()
    sessions, pace = Sessions(), Pace()
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(Guard, access=access, sessions=sessions, pace=pace)],
        exception_handlers={
            HTTPException: _refused,
            errors.UsageError: _refused,
            errors.ConfigurationError: _broken,
            errors.StoreError: _broken,
            Exception: _failed,
        },
    )
    figures = Later(lambda: _list.figures(runtime), _FIGURES_S)
    ahead = Later(lambda: _timeline.ahead(runtime, _words.now()), _AHEAD_S)
    changes = _events.Changes(runtime, lambda: (figures.known, ahead.known))
    app.state.dashboard = Dashboard(
        runtime,
        access,
        sessions,
        pace,
        _templates(),
        changes,
        Catalogue(runtime),
        figures,
        ahead,
    )
    return app


def _routes() -> list[Route | Mount]:
    return [
        Route("/", _list.jobs, name="jobs"),
        Route("/several", _actions.several, methods=["POST"]),
        Route("/jobs/{job}", _job.job),
        Route("/jobs/{job}/run", _actions.run, methods=["POST"]),
        Route("/jobs/{job}/pause", _actions.pause, methods=["POST"]),
        Route("/jobs/{job}/resume", _actions.resume, methods=["POST"]),
        Route("/runs/{run:int}", _run.run),
        Route("/runs/{run:int}/cancel", _actions.cancel, methods=["POST"]),
        Route("/runs/{run:int}/retry", _actions.retry, methods=["POST"]),
        Route("/timeline", _pages.timeline),
        Route("/nodes", _pages.nodes),
        Route("/audit", _pages.audit),
        Route("/login", _actions.login, methods=["GET", "POST"]),
        Route("/logout", _actions.logout, methods=["POST"]),
        Route("/events", _events.events),
        Mount("/api", routes=_api.routes()),
        Mount("/static", StaticFiles(packages=[(__package__, "static")])),
    ]


def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("condition", "instant", "look", "mark", "now", "precise", "relative")
    more = ("said", "spaced", "state_words", "took")
    found.globals.update({name: getattr(_words, name) for name in (*names, *more)})
    found.globals.update(schedule_words=schedule_words, marks=_words.MARKS, version=__version__)
    return found


def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else _status(error)
    said = error.detail if isinstance(error, HTTPException) else str(error)
    answer = _say(request, status, said)
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


def _status(error: Exception) -> int:
    missing = isinstance(error, errors.UnknownJobError)
    return HTTPStatus.NOT_FOUND if missing else HTTPStatus.BAD_REQUEST


def _broken(request: Request, error: Exception) -> Response:
    return _say(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error))


def _say(request: Request, status: int, said: str) -> Response:
    if path_of(request.scope).startswith("/api/"):
        return _api.answer({"error": said}, status)
    dashboard: Dashboard = request.app.state.dashboard
    title = HTTPStatus(status).phrase
    return dashboard.render(request, "error.html", status, title=title, said=said)


def _failed(_request: Request, _error: Exception) -> Response:
    """Say nothing of what went wrong: the log of the server has it."""
    return PlainTextResponse("this page failed; the server's log says why\n", 500)
