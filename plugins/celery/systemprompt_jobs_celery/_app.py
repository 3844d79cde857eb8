"""The Celery application: one task, JSON only, no results, no retries of its own."""

from __future__ import annotations

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


def message_of(app: Celery, run_id: int, fence: int) -> Any:
    """Return the message that names a run: a call of our task, without headers that say nothing.

    Half of the headers that Celery makes are None. The broker carries each, and both ends need
    longer for the headers than for all the rest; workers of Celery take what is not there as None.
    """
    message = app.amqp.as_task_v2(
        f"{run_id}.{fence}",
        TASK,
        args=(run_id, fence),
        argsrepr=f"({run_id}, {fence})",
        kwargsrepr="{}",
        ignore_result=True,
    )
    headers = {name: value for name, value in message.headers.items() if value is not None}
    headers.pop("timelimit", None)  # a list of two that are None
    return message._replace(headers=headers)  # a named tuple
