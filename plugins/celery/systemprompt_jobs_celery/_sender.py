"""One connection that sends, and knows what the broker has taken."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ._app import Messages, new_app, queue_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._line import Line

_CONFIRM_S = 10.0
"""How long a broker may take to confirm; then the connection counts as broken."""


class Sender:
    """Publishes persistently. A broker that confirms has a whole batch on its disk first.

    Raises whatever kombu and the transport raise; then it is of no more use but to be closed.
    """

    def __init__(self, line: Line) -> None:
        app = new_app(line)
        self._messages = Messages(app)
        self._queue = line.queue
        self._priority = line.priority
        self._connection = app.connection_for_write()
        self._unconfirmed: set[int] = set()
        self._published = 0
        try:
            self._connection.connect()
            self._channel: Any = self._connection.channel()
            self._confirms = hasattr(self._channel, "confirm_select")
            if self._confirms:
                self._channel.confirm_select()
                self._channel.events["basic_ack"].add(self._confirmed)
                self._channel.events["basic_nack"].add(self._refused)
            queue_of(line)(self._channel).declare()
        except BaseException:
            self.close()
            raise

    def send(self, runs: Iterable[tuple[int, int]]) -> None:
        """Publish messages for these (run, fence) pairs; return when all are confirmed."""
        with _at_one_go(self._connection):
            for run_id, fence in runs:
                self._publish(run_id, fence)
        while self._unconfirmed:
            self._connection.drain_events(timeout=_CONFIRM_S)

    def _publish(self, run_id: int, fence: int) -> None:
        """Publish by the channel itself: Celery's producer costs three times as much."""
        made = self._messages.of(run_id, fence)
        message = self._channel.prepare_message(priority=self._priority, **made)
        if not self._confirms:
            self._channel.basic_publish(message, exchange="", routing_key=self._queue)
            return
        from amqp.spec import Basic

        self._published += 1
        self._unconfirmed.add(self._published)
        where = (0, "", self._queue, False, False)
        self._channel.send_method(Basic.Publish, "Bssbb", where, message)

    def _confirmed(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {other for other in self._unconfirmed if other > tag}
        else:
            self._unconfirmed.discard(tag)

    def _refused(self, tag: int, multiple: bool) -> None:
        raise ConnectionError(f"the broker has refused message {tag}, {multiple=}")

    def close(self) -> None:
        """Give the connection back, whatever state it is in."""
        with suppress(Exception):
            self._connection.release()


@contextmanager
def _at_one_go(connection: Any) -> Iterator[None]:
    """Have a transport of py-amqp send together what the block writes, where it still can.

    By itself it asks the system for each message, and hands the interpreter to another thread as
    often.
    """
    transport: Any = getattr(connection.connection, "transport", None)
    write = getattr(transport, "_write", None)
    if write is None:
        yield
        return
    written = bytearray()
    transport._write = written.extend  # noqa: SLF001
    try:
        yield
    finally:
        transport._write = write  # noqa: SLF001
    transport.write(written)
