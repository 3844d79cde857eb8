"""A worker: messages in, runs taken; the functions run by executors of ours."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs.errors import text_of
from systemprompt_jobs.secrets import masked

from ._app import TASK, new_app, queue_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kombu.connection import Connection
    from kombu.message import Message

    from systemprompt_jobs import Runtime

    from ._line import Line

_PAUSES_S = (0.5, 1.0, 2.0, 5.0)
"""Between tries to reach a broker; the last one again and again."""

_QUIET_S, _BUSY_S, _PATIENT_S = 0.5, 0.002, 0.05
"""How long to listen at most: with nothing in hand, with news to come soon, with none for long."""

_HEARTBEAT_S = 30

_PREFETCH = 10
"""How many messages a worker holds unless told, where its executor does not say how many it runs."""

_log = structlog.get_logger("systemprompt_jobs")


class Worker:
    """Runs what comes through some lines, from `start` to `stop`."""

    def __init__(self, runtime: Runtime, lines: Mapping[str, Line]) -> None:
        self._runtime = runtime
        self._lines = lines
        self._intakes = [Intake(runtime, pool, line) for pool, line in lines.items()]

    def start(self) -> None:
        """Join the nodes of the database, then listen. Raises ConfigurationError, StoreError."""
        self._runtime.work({pool: line.executor for pool, line in self._lines.items()})
        for intake in self._intakes:
            intake.start()

    def stop(self) -> None:
        """Take nothing more; what runs has the configured grace to end."""
        for intake in self._intakes:
            intake.stop()
        self._runtime.stop()


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
        self._settled: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._in_hand = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"jobs-intake-{pool}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what was not begun goes back to the queue."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        app, tries = new_app(self._line), 0
        while not self._stopping.is_set():
            try:
                with app.connection_for_read(heartbeat=_HEARTBEAT_S) as connection:
                    connection.connect()
                    tries = 0
                    self._listen(connection)
            except Exception as error:  # noqa: BLE001  # whatever a transport raises
                pause = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
                tries += 1
                reason = f"{self._line.shown}: {masked(text_of(error))}"
                _log.error("broker_unavailable", reason=reason, next_try_s=pause)
                self._stopping.wait(pause)

    def _listen(self, connection: Connection) -> None:
        from kombu.messaging import Consumer

        channel = connection.channel()
        queues = [queue_of(self._line)]
        consumer = Consumer(channel, queues, accept=["json"], prefetch_count=self._prefetch)
        consumer.on_message = self._receive
        self._in_hand, beat = 0, time.monotonic()
        with consumer:
            _log.info("worker_listens", broker=self._line.shown, queue=self._line.queue)
            pause = _QUIET_S
            while not self._stopping.is_set():
                news = self._acknowledge(channel)
                with suppress(TimeoutError):
                    connection.drain_events(timeout=pause)
                    news = True
                pause = self._pause(pause, news=news)
                if connection.supports_heartbeats and time.monotonic() > beat + _HEARTBEAT_S / 4:
                    beat = time.monotonic()
                    connection.heartbeat_check()
            self._acknowledge(channel)

    def _pause(self, last: float, *, news: bool) -> float:
        """Return how long to listen: shortly while there will be something to acknowledge."""
        if not self._in_hand:
            return _QUIET_S
        return _BUSY_S if news else min(2 * last, _PATIENT_S)

    def _receive(self, message: Message) -> None:
        named = _named(message)
        if named is None:
            _log.error("message_refused", queue=self._line.queue, body=str(message.body)[:200])
            message.reject()
            return
        self._in_hand += 1
        self._runtime.take(*named, self._pool, partial(self._settled.put, message))

    def _acknowledge(self, channel: Any) -> bool:
        """Acknowledge what is settled; return whether there was anything."""
        found = False
        with suppress(queue.Empty):
            while True:
                message = self._settled.get_nowait()
                if message.channel is channel:  # else its connection broke: it comes again
                    message.ack()
                    self._in_hand -= 1
                    found = True
        return found


def _named(message: Message) -> tuple[int, int] | None:
    """Return run and fence of a call of our task, None for what is anything else."""
    if message.headers.get("task") != TASK:
        return None
    try:
        (run_id, fence), *_ = message.decode()
    except (TypeError, ValueError):
        return None
    return (run_id, fence) if type(run_id) is type(fence) is int else None
