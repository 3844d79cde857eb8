"""Our executors keep the contract that those of other plugins can be held to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from systemprompt_jobs import Runtime
from systemprompt_jobs.builtin.coroutines import Coroutines
from systemprompt_jobs.builtin.processes import Processes
from systemprompt_jobs.builtin.threads import Threads
from systemprompt_jobs.interfaces import Capabilities
from systemprompt_jobs.testing import ExecutorContract


class TestThreads(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return Threads(3)


class TestCoroutines(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return Coroutines(3)


class TestProcesses(ExecutorContract):
    @pytest.fixture
    def executor(self, origin):
        return Processes(origin, 2, grace=2.0)


class Direct:
    """The least that is remote: a call in this process instead of a message."""

    capabilities = Capabilities(remote=True)
    size = 100
    deadline = timedelta(minutes=1)
    problem = ""

    def __init__(self, worker):
        self._worker = worker

    def submit(self, attempt):
        self._worker.take(attempt.run.id, attempt.run.fence, "default", lambda: None)

    def interrupt(self, attempt):
        raise AssertionError("what runs elsewhere is interrupted there")

    def close(self):
        pass


class TestRemote(ExecutorContract):
    @pytest.fixture
    def size(self):
        return 2

    @pytest.fixture
    def executor(self, origin):
        worker = Runtime(**origin)
        worker.work({"default": {"kind": "threads", "size": 2}})
        yield Direct(worker)
        worker.stop()
