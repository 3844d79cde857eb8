"""Services see how their run ended, and how they end counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Engine, text

from systemprompt_jobs import Runtime, hookimpl
from systemprompt_jobs._services import RunServices, ServiceRegistry
from systemprompt_jobs.errors import ServiceError
from systemprompt_jobs.model import State

JOBS = """
from sqlalchemy import Connection
from systemprompt_jobs import JobResult, job

def insert(ctx):
    from sqlalchemy import text
    ctx.get(Connection).execute(text("INSERT INTO t VALUES (1)"))

@job
def succeeds(ctx):
    insert(ctx)

@job
def raises(ctx):
    insert(ctx)
    raise ValueError("after the insert")

@job
def returns_failure(ctx):
    insert(ctx)
    return JobResult.failure("not good enough")
"""


class Transactions:
    """A plugin that gives each job a transaction."""

    def __init__(self):
        self.commit_fails = False

    @hookimpl
    def register_services(self, registry):
        from sqlalchemy import Connection, create_engine

        engine = create_engine(f"sqlite:///{self.file}")
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS t (x)"))

        def connection():
            with engine.begin() as opened:
                yield opened
                if self.commit_fails:
                    raise OSError("COMMIT failed")

        registry.register_factory(Connection, connection)
        registry.register_value(Engine, engine, on_registry_close=engine.dispose)


@pytest.fixture
def transactions(tmp_path):
    plugin = Transactions()
    plugin.file = tmp_path / "app.db"
    return plugin


@pytest.fixture
def runtime(tmp_path, transactions):
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "jobs.py").chmod(0o644)
    (tmp_path / "profile.yaml").write_text("scheduler: {local_plugins: [jobs.py]}\n")
    runtime = Runtime(tmp_path, plugins=[transactions], environ={"SYSTEMPROMPT_PLUGINS": ""})
    yield runtime
    runtime.stop()


def rows(runtime):
    engine = runtime._resources.container().get(Engine)
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM t")).scalar()


def test_a_job_that_succeeds_commits(runtime):
    (run,) = runtime.run("succeeds")
    assert (run.state, rows(runtime)) == (State.SUCCEEDED, 1)


@pytest.mark.parametrize("job", ["raises", "returns_failure"])
def test_a_job_that_fails_rolls_back(runtime, job):
    (run,) = runtime.run(job)
    assert (run.state, rows(runtime)) == (State.FAILED, 0)


def test_a_declared_failure_keeps_its_message(runtime):
    (run,) = runtime.run("returns_failure")
    assert (run.error, run.message) == ("not good enough", "not good enough")


def test_a_commit_that_fails_is_never_a_success(runtime, transactions):
    transactions.commit_fails = True
    (run,) = runtime.run("succeeds")
    assert (run.state, rows(runtime)) == (State.FAILED, 0)
    assert "COMMIT failed" in run.error
    assert "while cleaning up the service" in runtime.traceback(run)


def test_the_error_of_the_job_is_not_hidden_by_one_of_the_clean_up():
    registry = ServiceRegistry()

    def factory():
        try:
            yield "service"
        finally:
            raise OSError("clean-up")

    registry.register_factory(str, factory)
    with pytest.raises(ZeroDivisionError) as caught, RunServices(registry) as services:
        _ = len(services.get(str)) / 0
    assert any("clean-up" in note for note in caught.value.__notes__)


@dataclass
class Log:
    lines: list[str] = field(default_factory=list)


def test_all_services_are_cleaned_up_last_made_first_whatever_one_of_them_does():
    registry, log = ServiceRegistry(), Log()

    def noted(name, *, fails=False):
        def factory():
            yield name
            log.lines.append(name)
            if fails:
                raise OSError(name)

        return factory

    registry.register_factory(int, noted("first"))
    registry.register_factory(str, noted("second", fails=True))
    registry.register_factory(bytes, noted("third"))
    services = RunServices(registry)
    for kind in (int, str, bytes):
        services.get(kind)
    with pytest.raises(OSError, match="second"):
        services.close()
    assert log.lines == ["third", "second", "first"]


def test_a_service_is_registered_by_one_plugin_only():
    registry = ServiceRegistry()
    registry.register_value(str, "one")
    with pytest.raises(ServiceError, match="str is registered already"):
        registry.register_factory(str, lambda: "two")


def test_an_async_job_sees_the_same_services(tmp_path):
    source = """
from systemprompt_jobs import job
@job
async def asks(ctx):
    return ctx.get(str)
"""
    (tmp_path / "jobs.py").write_text(source)
    (tmp_path / "jobs.py").chmod(0o644)
    (tmp_path / "profile.yaml").write_text("scheduler: {local_plugins: [jobs.py]}\n")

    class Words:
        @hookimpl
        def register_services(self, registry):
            registry.register_value(str, "spoken")

    runtime = Runtime(tmp_path, plugins=[Words()], environ={"SYSTEMPROMPT_PLUGINS": ""})
    (run,) = runtime.run("asks")
    runtime.stop()
    assert run.message == "spoken"
    assert asyncio.iscoroutinefunction(runtime.find("asks").job.function)
