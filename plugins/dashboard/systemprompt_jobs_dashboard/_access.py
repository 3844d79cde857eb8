"""Who may see the pages, and who may act: tokens, sessions, hosts, and the pace of log-ins."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SESSION_S = 12 * 3600
_SESSIONS = 1000
_TRIES, _TRIES_S = 5, 60.0
_ALL_TRIES = 50
_NAME_LENGTH = 40


class Role(IntEnum):
    """What somebody may do; each includes those before."""

    NOBODY = 0
    VIEWER = 1
    OPERATOR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may see and who may act.

    - `token` makes an operator of who logs in with it; without one nobody can act.
    - `view_token` lets see. `user_header` is a request header, set by a reverse proxy that has
      authenticated its user, who may then see; acting needs the token still.
    - `hosts` are the names, without port, under which the pages may be asked for.

    With neither `view_token` nor `user_header`, only requests made directly from this machine
    may see without logging in, and only if `local_view`.
    """

    token: str = field(default="", repr=False)
    view_token: str = field(default="", repr=False)
    user_header: str = ""
    hosts: tuple[str, ...] = LOOPBACK
    local_view: bool = True

    def role_of(self, token: str) -> Role:
        """Return what a token makes of who has it; every comparison takes constant time."""
        operator = _same(token, self.token)
        viewer = _same(token, self.view_token)
        return Role.OPERATOR if operator else Role.VIEWER if viewer else Role.NOBODY

    def may_be_asked_as(self, host: str) -> bool:
        """Return whether a Host header names us; a page of another name rebound to us does not."""
        return host_name(host) in {name.lower().strip("[]") for name in self.hosts}

    def sees_without_session(self, client: str | None, headers: Mapping[str, str]) -> bool:
        """Return whether a request may see, whoever makes it."""
        if self.user_header:
            return bool(headers.get(self.user_header))
        forwarded = any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip"))
        return (
            self.local_view and not self.view_token and not forwarded and is_loopback(client or "")
        )

    def user_of(self, headers: Mapping[str, str]) -> str:
        """Return the user that the reverse proxy names, if it does."""
        return cleaned(headers.get(self.user_header, "")) if self.user_header else ""


def host_name(host: str) -> str:
    """Return a Host header without its port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def is_loopback(host: str) -> bool:
    """Return whether an address or name is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def cleaned(name: str) -> str:
    """Return the name of a person fit for the audit: short, of printable characters."""
    return "".join(c for c in name if c.isprintable()).strip()[:_NAME_LENGTH]


def _same(given: str, wanted: str) -> bool:
    """Compare in constant time; an empty token is nobody's."""
    equal = hmac.compare_digest(given.encode(), (wanted or "\0").encode())
    return equal and bool(wanted)


@dataclass(slots=True)
class Session:
    """Somebody who has logged in; `flash` is said once, on the next page."""

    role: Role
    name: str
    until: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    flash: list[str] = field(default_factory=list)


class Sessions:
    """The sessions of this process, by their secret; they end with it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = monotonic
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Session] = OrderedDict()

    def begin(self, role: Role, name: str) -> str:
        """Return the secret of a new session; the oldest make room."""
        secret = secrets.token_urlsafe(32)
        with self._lock:
            self._found[secret] = Session(role, name, self._now() + SESSION_S)
            while len(self._found) > _SESSIONS:
                self._found.popitem(last=False)
        return secret

    def get(self, secret: str) -> Session | None:
        """Return the session, if it has not ended."""
        with self._lock:
            session = self._found.get(secret)
            if session is not None and session.until < self._now():
                del self._found[secret]
                return None
            return session

    def end(self, secret: str) -> None:
        """Forget a session."""
        with self._lock:
            self._found.pop(secret, None)


class Pace:
    """How often a wrong token may be tried: a few times a minute from one address, more from all."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = monotonic
        self._lock = threading.Lock()
        self._failed: deque[tuple[float, str]] = deque(maxlen=_ALL_TRIES)

    def wait_s(self, client: str) -> int:
        """Return for how many seconds this address may not try, 0 if it may."""
        with self._lock:
            now = self._now()
            recent = [(at, who) for at, who in self._failed if at > now - _TRIES_S]
            own = [at for at, who in recent if who == client]
            if len(recent) < _ALL_TRIES and len(own) < _TRIES:
                return 0
            oldest = own[-_TRIES] if len(own) >= _TRIES else recent[0][0]
            return max(1, int(oldest + _TRIES_S - now) + 1)

    def failed(self, client: str) -> None:
        """Count a wrong token."""
        with self._lock:
            self._failed.append((self._now(), client))
