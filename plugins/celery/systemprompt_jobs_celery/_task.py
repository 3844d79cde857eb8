"""Our task in a Celery worker: of `celery -A systemprompt_jobs_celery`, or of another application."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from ._app import TASK, new_app, queue_of
from ._line import lines_of

if TYPE_CHECKING:
    from celery import Celery

    from systemprompt_jobs import Runtime


class Host:
    """The worker node of this process, made at its first message: pools of processes fork first."""

    def __init__(self, root: str | None) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self._pools: dict[str, str] = {}

    def run(self, run_id: int, fence: int, queue: str) -> None:
        """Return when the run has begun here, or will not: then the message is done with."""
        begun = threading.Event()
        runtime = self._at_work()
        pool = self._pools.get(queue) or next(iter(self._pools.values()))
        runtime.take(run_id, fence, pool, begun.set)
        begun.wait()

    def _at_work(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                runtime = _runtime(self._root)
                lines = lines_of(runtime, os.environ)
                self._pools = {line.queue: pool for pool, line in lines.items()}
                runtime.work({pool: line.executor for pool, line in lines.items()})
                self._runtime = runtime
            return self._runtime

    def stop(self, **_: Any) -> None:
        """Let what runs end, for at most `shutdown_grace`."""
        with self._lock:
            if self._runtime is not None:
                self._runtime.stop()
                self._runtime = None


def mount(app: Celery, root: str | None = None) -> None:
    """Register the task, and have its node stop with the worker."""
    from celery import signals

    host = Host(root)

    @app.task(  # type: ignore[untyped-decorator]
        name=TASK,
        shared=False,  # other applications of this process have their own
        bind=True,
        acks_late=True,
        ignore_result=True,
        max_retries=0,
        serializer="json",
    )
    def run(task: Any, run_id: int, fence: int) -> None:
        host.run(run_id, fence, task.request.delivery_info.get("routing_key", ""))

    for signal in (signals.worker_process_shutdown, signals.worker_shutdown):
        signal.connect(host.stop, weak=False)


def project_app() -> Celery:
    """Return an application for the project that `SYSTEMPROMPT_ROOT` or the folder says.

    It serves all queues of the broker that the first of its executors has.
    """
    found = list(lines_of(_runtime(None), os.environ).values())
    if not found:
        raise ValueError("scheduler.executors has none of kind celery")
    app = new_app(found[0])
    app.conf.task_queues = [queue_of(line) for line in found if line.broker == found[0].broker]
    mount(app)
    return app


def _runtime(root: str | None) -> Runtime:
    from systemprompt_jobs import Runtime

    return Runtime(root)
