"""The Celery application: one task, JSON only, no results, no retries of its own."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from ._line import PRIORITIES

if TYPE_CHECKING:
    from celery import Celery
    from kombu.entity import Queue

    from ._line import Line

TASK = "systemprompt_jobs.run"

_importing = threading.Lock()
"""Celery puts another module in its own place while it is imported: a second thread finds neither."""


def new_app(line: Line) -> Celery:
    """Return an application for the broker of a line. It is nobody's current one."""
    with _importing:
        from celery import Celery
    app = Celery("systemprompt_jobs", broker=line.broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=4,
        broker_transport_options=dict(line.options),
        result_backend=None,
        task_acks_late=True,
        task_default_queue=line.queue,
        task_ignore_result=True,
        task_publish_retry=False,
        task_serializer="json",
        worker_pool="threads",
        worker_prefetch_multiplier=1,
    )
    return app


def queue_of(line: Line) -> Queue:
    """Return the durable queue of a line, as Celery itself would declare it."""
    from kombu.entity import Exchange, Queue

    most = None if line.priority is None else PRIORITIES
    return Queue(line.queue, Exchange(line.queue), routing_key=line.queue, max_priority=most)


class Messages:
    """Calls of our task, each naming a run: one is made by Celery, all others after it.

    Headers that say nothing are left out: the broker carries each, and both ends need longer for
    the headers than for all the rest. Workers of Celery take what is not there as it would be.
    """

    def __init__(self, app: Celery) -> None:
        made = app.amqp.as_task_v2("", TASK, args=(0, 0), kwargsrepr="{}", ignore_result=True)
        self._headers = {name: value for name, value in made.headers.items() if value}
        self._headers.pop("timelimit", None)  # a list of two that are None
        self._rest = made.body[1:]

    def of(self, run_id: int, fence: int) -> dict[str, Any]:
        """Return the message for a run, as `prepare_message` of kombu's channels takes it."""
        name = f"{run_id}.{fence}"
        told = {"id": name, "root_id": name, "argsrepr": f"({run_id}, {fence})"}
        return {
            "body": json.dumps(((run_id, fence), *self._rest)).encode(),
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": self._headers | told,
            "properties": {"correlation_id": name, "delivery_mode": 2},
        }
