"""The executor `celery` keeps the contract that all executors keep."""

from __future__ import annotations

import pytest
from systemprompt_jobs_celery._executor import CeleryExecutor
from systemprompt_jobs_celery._line import Line
from systemprompt_jobs_celery._worker import Worker

from systemprompt_jobs import Runtime
from systemprompt_jobs.testing import ExecutorContract

SIZE = 2


class TestCelery(ExecutorContract):
    @pytest.fixture
    def size(self):
        return SIZE

    @pytest.fixture
    def executor(self, origin, redis, tmp_path):
        line = Line(redis.url, queue=tmp_path.name, size=SIZE, worker={"kind": "threads"})
        worker = Worker(Runtime(**origin), {"default": line})
        worker.start()
        yield CeleryExecutor(line)
        worker.stop()
