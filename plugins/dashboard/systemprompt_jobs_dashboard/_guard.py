"""The gate in front of every page: the Host header, who asks, and the headers of every answer."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse

from ._access import Role

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ._access import Access, Pace, Session, Sessions
    from ._app import Dashboard

COOKIE = "jobs_dashboard"
_FORM_BYTES = 64 * 1024
_SAFE = ("GET", "HEAD")
_OPEN = ("/login", "/static/")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. `session` is None for who has not logged in."""

    role: Role
    name: str = ""
    session: Session | None = None

    @property
    def may_act(self) -> bool:
        """Whether they may change anything: pages are forms of a session, never of a token."""
        return self.role is Role.OPERATOR and self.session is not None


class Guard:
    """ASGI middleware that lets through whom `access` allows, with `scope["visitor"]` set."""

    def __init__(self, app: ASGIApp, access: Access, sessions: Sessions, pace: Pace) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["dashboard_root"] = scope.get("root_path", "")  # a mounted route changes the other
        scope["visitor"] = visitor = self._visitor(scope)
        refusal = self._refusal(scope, visitor)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (refusal or self._app)(scope, receive, send_guarded)

    def _visitor(self, scope: Scope) -> Visitor:
        request, access = Request(scope), self._access
        user = access.user_of(request.headers)
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        if session is not None and (not access.user_header or user):
            return Visitor(session.role, user or session.name, session)
        client = request.client.host if request.client else ""
        if role := self._role_of_bearer(request, client):
            return Visitor(role, user)
        sees = access.sees_without_session(client, request.headers)
        return Visitor(Role.VIEWER if sees else Role.NOBODY, user)

    def _role_of_bearer(self, request: Request, client: str) -> Role:
        """Return what a token in the header makes of who sends it, at the pace of log-ins."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or self._pace.wait_s(client):
            return Role.NOBODY
        role = self._access.role_of(token.strip())
        if not role:
            self._pace.failed(client)
        return role

    def _refusal(self, scope: Scope, visitor: Visitor) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if not self._access.may_be_asked_as(headers.get("host", "")):
            return PlainTextResponse(
                "this name is not one the dashboard answers to: start it with --allow-host NAME\n",
                HTTPStatus.MISDIRECTED_REQUEST,
            )
        if scope["method"] not in _SAFE and not _same_origin(headers):
            return PlainTextResponse("this form came from another site\n", HTTPStatus.FORBIDDEN)
        path = path_of(scope)
        if visitor.role is Role.NOBODY and not path.startswith(_OPEN):
            if path.startswith("/api/"):
                return PlainTextResponse(
                    "a token is needed: Authorization: Bearer …\n",
                    HTTPStatus.UNAUTHORIZED,
                    {"WWW-Authenticate": "Bearer"},
                )
            return RedirectResponse(f"{root_of(scope)}/login", HTTPStatus.SEE_OTHER)
        return None


def dashboard_of(request: Request) -> Dashboard:
    """Return what the pages share."""
    found: Dashboard = request.app.state.dashboard
    return found


def root_of(scope: Scope) -> str:
    """Return the path below which the dashboard is mounted, empty if it is not."""
    return str(scope["dashboard_root"])


def path_of(scope: Scope) -> str:
    """Return the path of a page below the dashboard's root."""
    return str(scope["path"]).removeprefix(root_of(scope))


def _same_origin(headers: Headers) -> bool:
    """Return whether a browser sent this from a page of ours; other clients say nothing."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises HTTPException for what is too large or no form."""
    return dict(await read_fields(request))


async def read_fields(request: Request) -> list[tuple[str, str]]:
    """Return the fields of a form of which some come several times. Raises as `read_form`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "this is not a form")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "this form is too large")
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "this form cannot be read") from None


def check_may_act(visitor: Visitor, form: dict[str, str]) -> Session:
    """Return the operator's session. Raises HTTPException for anybody else."""
    if not visitor.may_act:
        raise HTTPException(HTTPStatus.FORBIDDEN, "only an operator may do this: log in first")
    return check_form(visitor, form)


def check_form(visitor: Visitor, form: dict[str, str]) -> Session:
    """Return the session whose form this is. Raises HTTPException for one of another."""
    csrf = visitor.session.csrf if visitor.session else ""
    same = hmac.compare_digest(form.get("csrf", "").encode(), csrf.encode())
    if visitor.session is None or not same:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this form is not of your session: reload it")
    return visitor.session
