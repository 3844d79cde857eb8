"""A mail server that others wrote gets what happens in a real scheduler."""

from __future__ import annotations

import queue
import ssl
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy

import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from plugins.alerts.tests.conftest import PEM, WAIT_S
from plugins.prometheus.tests.support import NOON, ShiftedClock
from systemprompt_jobs import Runtime

JOBS = """
from systemprompt_jobs import job

@job(schedule="0 0 * * * *")
def hourly(*, well: bool = True):
    if not well:
        raise ValueError("größer als \\N{SNOWMAN}\\n.\\nFrom: nobody")
"""


class Handler:
    """Keeps what was delivered: sender, recipients, message."""

    def __init__(self):
        self.mails = queue.Queue()

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  # aiosmtpd's name
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.mails.put((session.auth_data, envelope.mail_from, envelope.rcpt_tos, message))
        return "250 OK"


class Server(Controller):
    """On a port that is free, with STARTTLS and one user, and nothing without both."""

    def __init__(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)
        super().__init__(
            Handler(),
            hostname="127.0.0.1",
            port=0,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=self._allow,
            ready_timeout=WAIT_S,
        )

    def _allow(self, server, session, envelope, mechanism, data):
        right = (data.login, data.password) == (b"ada", b"hunter2")
        return AuthResult(success=right, auth_data=data.login)

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def server():
    made = Server()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def load(tmp_path, server, monkeypatch):
    """Return a function that loads a runtime at a time of its own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    (tmp_path / "jobs.py").write_text(JOBS, "utf-8")
    mail = {"type": "smtp", "host": "localhost", "port": server.port, "sender": "a@example.com"}
    login = {"username": "ada", "password": {"env": "PASSWORD"}, "to": ["b@c.de", "d@e.fr"]}
    alerts = {"name": "here", "channels": {"mail": mail | login}}
    scheduler = {"local_plugins": ["jobs.py"], "extensions": {"alerts": alerts}}
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump({"scheduler": scheduler}))
    environ = {"SYSTEMPROMPT_PLUGINS": "alerts", "PASSWORD": "hunter2"}
    return lambda now: Runtime(tmp_path, environ=environ, clock=ShiftedClock(now))


def test_missed_ticks_a_failure_and_the_recovery_arrive_as_mails(load, server):
    with load(NOON):
        pass
    with load(NOON + timedelta(hours=4)) as runtime:
        missed = server.handler.mails.get(timeout=WAIT_S)
        (bad,) = runtime.run("hourly", parameters={"well": False})
        failed = server.handler.mails.get(timeout=WAIT_S)
        runtime.run("hourly")
        recovered = server.handler.mails.get(timeout=WAIT_S)
    assert {mail[:2] for mail in (missed, failed, recovered)} == {(b"ada", "a@example.com")}
    assert failed[2] == ["b@c.de", "d@e.fr"]
    subjects = [mail[3]["Subject"] for mail in (missed, failed, recovered)]
    assert subjects == [
        "[here] jobs:hourly missed 3 ticks",
        "[here] jobs:hourly failed",
        "[here] jobs:hourly succeeds again",
    ]
    body = failed[3].get_content()
    assert "ValueError: größer als \N{SNOWMAN}" in body
    assert f"run {bad.id}, by manual" in body
    assert abs(failed[3]["Date"].datetime - datetime.now(UTC)) > timedelta(days=1)  # when it failed
