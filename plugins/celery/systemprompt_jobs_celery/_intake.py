"""Listens to a queue: hands on what messages name, acknowledges what has begun."""

from __future__ import annotations

import json
import queue
import select
import socket
import ssl
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import structlog

from systemprompt_jobs.errors import text_of
from systemprompt_jobs.secrets import masked

from ._app import TASK, new_app, queue_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kombu.connection import Connection
    from kombu.message import Message

    from systemprompt_jobs import Runtime

    from ._line import Line

_PAUSES_S = (0.5, 1.0, 2.0, 5.0)
"""Between tries to reach a broker; the last one again and again."""

_QUIET_S, _BUSY_S, _PATIENT_S = 0.5, 0.005, 0.05
"""How long to listen at most: with nothing in hand, with news to come soon, with none for long."""

_HEARTBEAT_S = 30

_PREFETCH = 10
"""How many messages a worker holds unless told, where its executor does not say how many it runs."""

_AHEAD = 4096
"""Bytes to ask the system for at once. py-amqp by itself asks nine times for each message, for a
few bytes each, and hands the interpreter to another thread as often."""

_log = structlog.get_logger("systemprompt_jobs")


class Intake:
    """Listens to one queue on a thread of its own; connects again as often as it must.

    A message is acknowledged when its run has passed the gate, or cannot: so one that a dying
    worker held goes to another, and none is held while its function runs.
    """

    def __init__(self, runtime: Runtime, pool: str, line: Line) -> None:
        self._runtime = runtime
        self._pool = pool
        self._line = line
        self._prefetch = line.prefetch or int(line.executor.get("size", _PREFETCH))
        self._hand: Hand | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"jobs-intake-{pool}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what was not begun goes back to the queue."""
        self._stopping.set()
        if (hand := self._hand) is not None:
            hand.ring()
        self._thread.join()

    def _run(self) -> None:
        tries = 0
        while not self._stopping.is_set():
            try:
                app = new_app(self._line)
                with app.connection_for_read(heartbeat=_HEARTBEAT_S) as connection:
                    connection.connect()
                    tries = 0
                    with Hand(connection) as self._hand:
                        self._listen(connection, self._hand)
            except Exception as error:  # noqa: BLE001  # whatever a transport raises
                pause = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
                tries += 1
                reason = f"{self._line.shown}: {masked(text_of(error))}"
                _log.error("broker_unavailable", reason=reason, next_try_s=pause)
                self._stopping.wait(pause)

    def _listen(self, connection: Connection, hand: Hand) -> None:
        from kombu.messaging import Consumer

        queues = [queue_of(self._line)]
        consumer = Consumer(
            connection.channel(), queues, accept=["json"], prefetch_count=self._prefetch
        )
        consumer.on_message = partial(self._receive, hand)
        beat = time.monotonic()
        with consumer:
            _log.info("worker_listens", broker=self._line.shown, queue=self._line.queue)
            while not self._stopping.is_set():
                hand.listen()
                hand.acknowledge()
                if connection.supports_heartbeats and time.monotonic() > beat + _HEARTBEAT_S / 4:
                    beat = time.monotonic()
                    connection.heartbeat_check()
            hand.acknowledge()

    def _receive(self, hand: Hand, message: Message) -> None:
        named = _named(message)
        if named is None:
            _log.error("message_refused", queue=self._line.queue, body=str(message.body)[:200])
            message.reject()
            return
        self._runtime.take(*named, self._pool, hand.hold(message))


class Hand:
    """The messages of one connection that are not acknowledged yet, in the order they came in.

    One thread uses it; only `ring`, and what `hold` returns, may be called by any. What is left
    when the connection ends comes again.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # AMQP has one, Redis has not.
        self._sock: Any = getattr(connection.connection, "sock", None)
        self._transport = getattr(connection.connection, "transport", None)
        _read_ahead(self._transport)
        self._held: deque[Message] = deque()
        self._settled: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._rope, self._bell = socket.socketpair()
        self._rung = False
        self._pause = _QUIET_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._rope.close()
        self._bell.close()

    def hold(self, message: Message) -> Callable[[], None]:
        """Keep a message until what is returned is called."""
        self._held.append(message)
        return partial(self._settle, message.delivery_tag)

    def _settle(self, tag: object) -> None:
        self._settled.put(tag)
        self.ring()

    def ring(self) -> None:
        """End the listening."""
        if not self._rung:
            self._rung = True
            with suppress(OSError):  # the connection has ended meanwhile
                self._rope.send(b"!")

    def listen(self) -> None:
        """Hand on what comes in, soon after it does, or return because of the bell."""
        if self._sock is None:
            self._poll()
            return
        patience = 0 if self._waits() else _QUIET_S
        if self._bell in select.select([self._sock, self._bell], [], [], patience)[0]:
            self._bell.recv(1)
            self._rung = False
        with suppress(TimeoutError):
            while self._waits():
                self._connection.drain_events(timeout=_BUSY_S)

    def _waits(self) -> bool:
        """Return whether there is something to read, read ahead and decrypted by TLS included."""
        if getattr(self._transport, "_read_buffer", b""):
            return True
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        return bool(select.select([self._sock], [], [], 0)[0])

    def _poll(self) -> None:
        """Listen shortly while there will be something to acknowledge soon, else longer."""
        try:
            self._connection.drain_events(timeout=self._pause)
            self._pause = _BUSY_S
        except TimeoutError:
            self._pause = min(2 * self._pause, _PATIENT_S) if self._held else _QUIET_S

    def acknowledge(self) -> None:
        """Acknowledge what is settled: the oldest that are so at one go, where AMQP is spoken."""
        settled = set()
        with suppress(queue.Empty):
            while True:
                settled.add(self._settled.get_nowait())
        if not settled:
            return
        self._pause, oldest = _BUSY_S, None
        if self._sock is not None:
            while self._held and self._held[0].delivery_tag in settled:
                oldest = self._held.popleft()
        if oldest is not None:
            oldest.ack(multiple=True)
        for message in [held for held in self._held if held.delivery_tag in settled]:
            self._held.remove(message)
            message.ack()


def _read_ahead(transport: Any) -> None:
    """Have a transport of py-amqp fill the buffer that it has, where it still has one."""
    receive = getattr(transport, "_quick_recv", None)
    if receive is not None and hasattr(transport, "_read_buffer"):
        transport._quick_recv = lambda size: receive(max(size, _AHEAD))  # noqa: SLF001


def _named(message: Message) -> tuple[int, int] | None:
    """Return run and fence of a call of our task, None for what is anything else."""
    if message.headers.get("task") != TASK:
        return None
    try:
        (run_id, fence), *_ = json.loads(message.body)  # whatever it says that it is
    except (TypeError, ValueError, RecursionError):
        return None
    return (run_id, fence) if type(run_id) is type(fence) is int else None
