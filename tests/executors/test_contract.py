"""Our executors keep the contract that those of other plugins can be held to."""

from __future__ import annotations

import pytest

from systemprompt_jobs.builtin.coroutines import Coroutines
from systemprompt_jobs.builtin.processes import Processes
from systemprompt_jobs.builtin.threads import Threads
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
