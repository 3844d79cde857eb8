"""A TCP proxy before PostgreSQL that stalls, refuses, and cuts connections where it hurts.

It reads what clients send: a simple query `COMMIT` ends a transaction, and all that was sent
since the one before tells what the transaction is about.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT = b"COMMIT\0"

ABOUT: dict[str, Callable[[bytes], bool]] = {
    "claim": lambda sent: b"INSERT INTO jobs_run" in sent and b'"schedule"' in sent,
    "gate": lambda sent: b"INSERT INTO jobs_attempt" in sent,
    "finish": lambda sent: b"DELETE FROM jobs_slot" in sent and b"jobs_attempt SET" in sent,
    "install": lambda sent: b"UPDATE jobs_job SET" in sent and b"revision" in sent,
    "start-up": lambda sent: b"INSERT INTO jobs_run" in sent and b'"startup"' in sent,
    "manual": lambda sent: b"INSERT INTO jobs_audit" in sent,
    "anything": lambda sent: True,
}
"""Whether a transaction, by all that it sent, is one of this kind."""


@dataclass
class _Trap:
    """Cut the next `left` connections at the COMMIT of such a transaction."""

    is_meant: Callable[[bytes], bool]
    left: int
    delay_s: float


class _Transactions:
    """Follows one client's messages; remembers the texts of prepared statements."""

    def __init__(self) -> None:
        self._buffer = b""
        self._talking = False
        self._prepared: dict[bytes, bytes] = {}
        self._sent = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was sent; return what each transaction that is committed by it had sent."""
        self._buffer += data
        done = []
        while (message := self._next()) is not None:
            kind, body = message
            if kind == b"Q" and body == COMMIT:
                done.append(self._sent)
                self._sent = b""
                continue
            if kind == b"P":
                name, text = body.split(b"\0")[:2]
                self._prepared[name] = text
            elif kind == b"B":
                self._sent += self._prepared.get(body.split(b"\0")[1], b"")
            self._sent += body
        return done

    def _next(self) -> tuple[bytes, bytes] | None:
        """Return a whole message; those that open a connection have no letter."""
        head = 1 if self._talking else 0
        if len(self._buffer) < head + 4:
            return None
        (length,) = struct.unpack_from("!I", self._buffer, head)
        if len(self._buffer) < head + length:
            return None
        kind, body = self._buffer[:head], self._buffer[head + 4 : head + length]
        self._buffer = self._buffer[head + length :]
        if not head:
            self._talking = body[:4] == struct.pack("!I", 3 << 16)  # else asks for encryption
        return kind, body


@dataclass
class Proxy:
    """Stands before the server of a URL, on a port of its own, until it is left.

    `cuts` counts the connections that were cut at a COMMIT.
    """

    server_url: str
    cuts: int = 0
    _trap: _Trap | None = None
    _refusing: bool = False
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_error: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The server's URL by way of this proxy."""
        parts = urlsplit(self.server_url)
        return f"{parts.scheme}://{parts.username}@127.0.0.1:{self._port}{parts.path}"

    def cut_at_commit(self, of: str, times: int = 1, delay_s: float = 0.0) -> None:
        """Cut the next connections that commit such a transaction, the COMMIT being sent.

        The server gets it `delay_s` after the client has lost its connection.
        """
        self._trap = _Trap(ABOUT[of], times, delay_s)

    def cut_all(self) -> None:
        """Cut every connection."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def refuse(self, yes: bool) -> None:
        """Cut whoever connects, or let them."""
        self._refusing = yes

    def stall(self, yes: bool) -> None:
        """Hold everything back, or let it flow again; connections stay."""
        self._loop.call_soon_threadsafe(self._flowing.clear if yes else self._flowing.set)

    # --- in the thread of the loop ---

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._listener.close()
        self._cut_all()
        self._flowing.set()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    def _cut_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        folder = parse_qs(urlsplit(self.server_url).query)["host"][0]
        self._open.add(to_client)
        try:
            if not self._refusing:
                server, to_server = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
                self._open.add(to_server)
                try:
                    await asyncio.gather(
                        self._until_closed(self._ask(client, to_server, to_client), to_client),
                        self._until_closed(self._answer(server, to_client), to_client),
                    )
                finally:
                    self._drop(to_server)
        except OSError:
            pass  # the server is down
        finally:
            self._drop(to_client)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.transport.abort()

    async def _until_closed(self, way, to_client: asyncio.StreamWriter) -> None:
        """Have the client's side go with the server's, however it goes."""
        with suppress(OSError):
            await way
        if not to_client.is_closing():
            to_client.transport.abort()

    async def _answer(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while data := await server.read(65_536):
            await self._flowing.wait()
            to_client.write(data)
            await to_client.drain()

    async def _ask(
        self,
        client: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
    ) -> None:
        transactions = _Transactions()
        while data := await client.read(65_536):
            await self._flowing.wait()
            if any(map(self._springs, transactions.feed(data))):
                to_client.transport.abort()
                await asyncio.sleep(self._delay_s)
                to_server.write(data)
                to_server.write_eof()
                await asyncio.sleep(0)
                return
            to_server.write(data)
            await to_server.drain()
        to_server.write_eof()

    def _springs(self, sent: bytes) -> bool:
        trap = self._trap
        if trap is None or not trap.left or not trap.is_meant(sent):
            return False
        trap.left -= 1
        self.cuts += 1
        self._delay_s = trap.delay_s
        return True
