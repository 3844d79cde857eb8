"""Serves the pages: where, to whom, and from which settings."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any

from systemprompt_jobs.errors import UsageError

from ._access import LOOPBACK, Access, is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from systemprompt_jobs import Runtime

HOST, PORT = "127.0.0.1", 8787
TOKEN_VARIABLE = "SYSTEMPROMPT_JOBS_DASHBOARD_TOKEN"  # noqa: S105  # a name, no token
VIEW_VARIABLE = "SYSTEMPROMPT_JOBS_DASHBOARD_VIEW_TOKEN"
_TOKENS = ("token", "view_token", "user_header")
_SETTINGS = ("host", "port", *_TOKENS, "allow_hosts")
_SHORTEST, _LAST_PORT = 16, 65535
_GRACE_S = 2


def read_settings(runtime: Runtime) -> dict[str, Any]:
    """Return the section `extensions.dashboard`, and tokens of the environment over it."""
    section = dict(runtime.settings.extensions.get("dashboard", {}))
    for name, variable in (("token", TOKEN_VARIABLE), ("view_token", VIEW_VARIABLE)):
        if os.environ.get(variable):
            section[name] = os.environ[variable]
    return section


def mistakes(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each setting that cannot be used, and why."""
    for name in sorted(section.keys() - set(_SETTINGS)):
        yield name, f"is no setting; there is {', '.join(_SETTINGS)}"
    if not isinstance(section.get("allow_hosts", []), list):
        yield "allow_hosts", "is no list: write [jobs.example.org]"
    port = section.get("port", PORT)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= _LAST_PORT:
        yield "port", f"is {port!r}: write a number up to 65535"


def make_access(settings: Mapping[str, Any]) -> tuple[Access, bool]:
    """Return who may see and act, and whether the token was made up for this start.

    Raises UsageError for an address beyond this machine that nothing protects, and for a token
    that can be guessed.
    """
    host = str(settings.get("host", HOST))
    values = {name: str(settings.get(name) or "") for name in _TOKENS}
    for name in ("token", "view_token"):
        if values[name] and len(values[name]) < _SHORTEST:
            raise UsageError(
                f"the {name} is shorter than {_SHORTEST} characters; take a random one"
            )
    local = is_loopback(host)
    if not local and not any(values.values()):
        raise UsageError(
            f"the dashboard's host {host} lets other machines in: set {TOKEN_VARIABLE}, or "
            "user_header if a reverse proxy authenticates its users"
        )
    made = local and not values["token"]
    if made:
        values["token"] = secrets.token_urlsafe(24)
    named = (*LOOPBACK, *_own_name(host), *settings.get("allow_hosts", ()))
    return Access(**values, hosts=named, local_view=local), made


def _own_name(host: str) -> tuple[str, ...]:
    """Return the address as a name, unless it stands for all addresses."""
    try:
        return () if ipaddress.ip_address(host.strip("[]")).is_unspecified else (host,)
    except ValueError:
        return (host,)


class Pages:
    """The pages on a socket that listens already; `token` is one made up for this start."""

    def __init__(self, runtime: Runtime, access: Access, listener: socket.socket) -> None:
        import uvicorn

        from ._app import create_app

        host, port = listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        self.token = ""
        self._listener = listener
        self._thread: threading.Thread | None = None
        config = uvicorn.Config(
            create_app(runtime, access),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = uvicorn.Server(config)

    def serve(self) -> None:
        """Answer until `end()`, or a signal if this is the main thread."""
        with self._listener:
            self._server.run(sockets=[self._listener])

    def start(self) -> None:
        """Answer on a thread until `stop()`."""
        self._thread = threading.Thread(target=self.serve, name="dashboard", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Answer no more from soon on; open streams are cut."""
        self._server.should_exit = True

    def stop(self) -> None:
        """End, and wait for it."""
        self.end()
        if self._thread is not None:
            self._thread.join(2 * _GRACE_S)


def open_pages(runtime: Runtime, settings: Mapping[str, Any]) -> Pages:
    """Return the pages, listening where the settings say. Raises UsageError."""
    access, made = make_access(settings)
    host, port = str(settings.get("host", HOST)), int(settings.get("port", PORT))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise UsageError(
            f"the dashboard cannot listen on {host} port {port}: {error.strerror or error}; "
            "choose another port with extensions.dashboard.port or --port"
        ) from None
    pages = Pages(runtime, access, listener)
    pages.token = access.token if made else ""
    return pages
