"""A real web server and a real mail server, which answer as a test says."""

from __future__ import annotations

import base64
import json
import queue
import socketserver
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import ManualClock

PEM = Path(__file__).parent / "server.pem"
"""Key and certificate of localhost, for these tests alone."""

WAIT_S = 90


@dataclass
class Posted:
    path: str
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Web:
    """What came is in `posted`. `answers` are used up first: a status, headers; then 200."""

    url: str = ""
    posted: queue.Queue[Posted] = field(default_factory=queue.Queue)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def get(self) -> Posted:
        return self.posted.get(timeout=WAIT_S)

    def texts(self) -> list[str]:
        """Return the texts of what has come so far."""
        return [self.posted.get_nowait().json["text"] for _ in range(self.posted.qsize())]


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def web():
    made = Web()
    made.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.posted.put(Posted(self.path, self.headers, body))
            made.gate.wait(WAIT_S)
            status, headers = made.answers.pop(0) if made.answers else (200, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    with serving(server) as port:
        made.url = f"http://127.0.0.1:{port}/T0/S3CRET"
        yield made
        made.gate.set()


@dataclass
class Post:
    """What came is in `mails`, with the user who sent it. `refused` maps a command to an answer."""

    port: int = 0
    mails: queue.Queue[tuple[str, Any]] = field(default_factory=queue.Queue)
    refused: dict[str, str] = field(default_factory=dict)
    encrypted: bool = False

    def get(self):
        return self.mails.get(timeout=WAIT_S)


class Smtp(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as smtplib uses."""

    timeout = WAIT_S
    user = ""

    def handle(self):
        if self.server.post.encrypted:
            self.encrypt()
        self.answer("220 ready")
        while line := self.rfile.readline().decode().strip():
            word = line.split(maxsplit=1)[0].upper()
            refusal = self.server.post.refused.get(line.upper(), self.server.post.refused.get(word))
            if refusal == "":
                return
            self.answer(refusal) if refusal else getattr(self, word.lower())(line)
            if word == "QUIT":
                return

    def finish(self):
        super().finish()
        self.request.close()  # not the socket that came, if it was wrapped

    def answer(self, text):
        self.wfile.write(f"{text}\r\n".encode())

    def encrypt(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)
        self.request = context.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)

    def ehlo(self, _line):
        self.answer("250-localhost\r\n250-STARTTLS\r\n250 AUTH PLAIN")

    def starttls(self, _line):
        self.answer("220 go on")
        self.encrypt()

    def auth(self, line):
        _, user, password = base64.b64decode(line.split()[-1]).decode().split("\0")
        self.user = user
        self.answer("235 welcome" if password == "hunter2" else "535 wrong password")

    def mail(self, _line):
        self.answer("250 ok")

    rcpt = rset = mail

    def data(self, _line):
        self.answer("354 go on")
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.replace(b"\r\n", b"\n"))
        message = message_from_bytes(b"".join(lines), policy=policy.default)
        self.server.post.mails.put((self.user, message))
        self.answer("250 ok")

    def quit(self, _line):
        self.answer("221 bye")


@pytest.fixture
def post():
    made = Post()
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
    server.handle_error = lambda *_: None  # a client that refuses our certificate
    server.post = made
    with serving(server) as made.port:
        yield made


@pytest.fixture
def trusted(monkeypatch):
    """Have the certificate of the mail server trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))


@pytest.fixture
def clock():
    return ManualClock()
