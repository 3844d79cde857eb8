"""One connection that sends, and knows what the broker has taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._app import message_of, new_app, queue_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._line import Line

_CONFIRM_S = 10.0
"""How long a broker may take to confirm; then the connection counts as broken."""


class Sender:
    """Publishes persistently. A broker that confirms has a whole batch on its disk first.

    Raises whatever kombu and the transport raise; then it is of no more use but to be closed.
    """

    def __init__(self, line: Line) -> None:
        self._app = new_app(line)
        self._queue = queue_of(line)
        self._priority = line.priority
        self._connection = self._app.connection_for_write()
        self._unconfirmed: set[int] = set()
        self._published = 0
        try:
            self._connection.connect()
            self._channel: Any = self._connection.channel()
            self._producer = self._app.amqp.Producer(self._channel, auto_declare=False)
            self._confirms = hasattr(self._channel, "confirm_select")
            if self._confirms:
                self._channel.confirm_select()
                self._channel.events["basic_ack"].add(self._confirmed)
                self._channel.events["basic_nack"].add(self._refused)
            self._queue(self._channel).declare()
        except BaseException:
            self.close()
            raise

    def send(self, runs: Iterable[tuple[int, int]]) -> None:
        """Publish messages for these (run, fence) pairs; return when all are confirmed."""
        for run_id, fence in runs:
            self._publish(run_id, fence)
        while self._unconfirmed:
            self._connection.drain_events(timeout=_CONFIRM_S)

    def _publish(self, run_id: int, fence: int) -> None:
        self._published += 1
        if self._confirms:
            self._unconfirmed.add(self._published)
        extra = {} if self._priority is None else {"priority": self._priority}
        self._app.amqp.send_task_message(
            self._producer,
            "systemprompt_jobs.run",
            message_of(self._app, run_id, fence),
            queue=self._queue,
            declare=(),
            delivery_mode=2,
            retry=False,
            **extra,
        )

    def _confirmed(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {other for other in self._unconfirmed if other > tag}
        else:
            self._unconfirmed.discard(tag)

    def _refused(self, tag: int, multiple: bool) -> None:
        raise ConnectionError(f"the broker has refused message {tag}, {multiple=}")

    def close(self) -> None:
        """Give the connection back, whatever state it is in."""
        from contextlib import suppress

        with suppress(Exception):
            self._connection.release()
