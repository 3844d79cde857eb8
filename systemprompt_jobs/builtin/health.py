"""Answers `/healthz` and `/readyz` on a port of its own, and what plugins add, e.g. `/metrics`.

`/healthz` is 200 while the scheduler's threads work, `/readyz` while it can start runs; otherwise
503. The body says why, in JSON. It needs nothing but the standard library.
"""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs.errors import UsageError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from systemprompt_jobs import Runtime

_TIMEOUT_S = 10
"""A client that says nothing for this long is cut off."""


class HealthServer:
    """The HTTP server, from `start()` to `stop()`, on threads of its own."""

    def __init__(self, runtime: Runtime, host: str, port: int) -> None:
        handler = type("Handler", (_Handler,), {"runtime": runtime})
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise UsageError(
                f"the health address {host}:{port} cannot be used: {error.strerror}: "
                "choose another scheduler.health_address"
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="jobs-health", daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    runtime: Runtime
    timeout = _TIMEOUT_S
    server_version = "systemprompt-jobs"
    sys_version = ""

    def do_GET(self) -> None:  # http.server's name
        """Answer one request."""
        path = self.path.partition("?")[0]
        own: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/healthz": lambda: self._health(live=True),
            "/readyz": lambda: self._health(live=False),
        }
        status, kind, body = own[path]() if path in own else self._page(path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def _health(self, *, live: bool) -> tuple[int, str, bytes]:
        health = self.runtime.health()
        well = health.live if live else health.ready
        answer = {
            "ok": well,
            "reasons": list(health.reasons),
            "degraded": [str(problem) for problem in self.runtime.degraded],
        }
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "application/json", json.dumps(answer).encode()

    def _page(self, path: str) -> tuple[int, str, bytes]:
        """Ask the plugins."""
        try:
            found = self.runtime.page(path)
        except Exception as error:  # noqa: BLE001  # a plugin's page concerns its reader alone
            structlog.get_logger("systemprompt_jobs").exception("page_failed", path=path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", text_of(error).encode()
        if found is None:
            return HTTPStatus.NOT_FOUND, "text/plain", b"there is /healthz and /readyz\n"
        return HTTPStatus.OK, *found

    def log_message(self, *_: Any) -> None:
        """Keep probes, one every few seconds, out of the log."""
