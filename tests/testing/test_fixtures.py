"""The fixtures that plugin authors get: a job by itself, and a scheduler on virtual time."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from systemprompt_jobs import JobContext, JobExtension, JobResult, job
from systemprompt_jobs.errors import ParameterError

pytest_plugins = ["pytester"]


class Mailer:
    """A service."""


@job(schedule="0 0 * * * *")
def hourly() -> None: ...


@job(schedule="0 30 2 * * *", timezone="Europe/Berlin")
def nightly() -> None: ...


@job(schedule="0 0 12 * * *", max_attempts=3, retry_delay="10s", timeout="5m")
def daily(ctx: JobContext) -> str:
    """Mail something."""
    return str(ctx.get(Mailer))


@job
def everything(ctx: JobContext, *, days: int = 30) -> JobResult:
    """Say all that it is given."""
    with ctx.db_pool(Engine).connect() as connection:
        one = connection.scalar(text("SELECT 1"))
    said = [days, ctx.enforce, ctx.tick, dict(ctx.config), ctx.get(Mailer), one]
    return JobResult.success().with_message(repr(said))


@job
async def refuse() -> None:
    """Fail."""
    raise ValueError("no")


# --- run_job ---


def test_a_job_gets_all_that_production_gives_it(run_job):
    report = run_job(
        everything,
        parameters={"days": "7"},
        enforce=True,
        tick="2026-03-02 02:30",
        config={"host": "mail"},
        databases={"default": "sqlite://"},
        services={Mailer: "fake"},
    )
    tick = datetime(2026, 3, 2, 2, 30, tzinfo=UTC)
    assert report.message == repr([7, True, tick, {"host": "mail"}, "fake", 1])


def test_what_a_function_raises_is_in_the_report(run_job):
    report = run_job(refuse)
    assert (report.outcome, report.error) == ("failed", "ValueError: no")


@pytest.mark.parametrize("parameters", [{"days": "many"}, {"dais": 7}])
def test_a_wrong_parameter_is_refused(run_job, parameters):
    with pytest.raises(ParameterError, match=r"dais|days"):
        run_job(everything, parameters=parameters)


class Shop(JobExtension):
    """A plugin with a service of its own."""

    def jobs(self):
        return [daily]

    def register_services(self, registry):
        registry.register_value(Mailer, "real")


@pytest.mark.parametrize(("services", "said"), [({}, "real"), ({Mailer: "fake"}, "fake")])
def test_a_fake_service_replaces_that_of_the_plugin(run_job, services, said):
    assert run_job("daily", plugins=[Shop()], services=services).message == said


# --- scheduler ---


def test_a_day_has_24_hours(scheduler):
    scheduler.add(hourly)
    scheduler.advance("1 day")
    assert scheduler.ran("hourly") == 24
    assert [str(run.state) for run in scheduler.runs("hourly")] == ["succeeded"] * 24
    assert scheduler.now == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("night", "hours", "shown"),
    [("2026-10-25", 25, "02:30:00.000 CEST"), ("2026-03-29", 23, "03:00:00.000 CEST")],
)
def test_it_runs_once_in_the_night_the_clocks_change(scheduler, night, hours, shown):
    scheduler.add(nightly, hourly)
    scheduler.at(f"{night} 00:00", "Europe/Berlin")
    scheduler.at(f"{night} 23:59:59")
    assert scheduler.ran("nightly") == 1
    assert scheduler.ran("hourly") == hours - 1
    assert shown in str(scheduler.timeline("nightly").of("run_started"))


def test_a_failure_is_tried_again_and_a_service_is_what_the_test_says(scheduler):
    scheduler.add(Shop())
    scheduler.service(Mailer, "fake")
    scheduler.fails("daily", ConnectionError("down"), times=2)
    scheduler.advance("1 day")
    (run,) = scheduler.runs("daily")
    assert (str(run.state), run.attempt, run.message) == ("succeeded", 3, "fake")
    first, second, third = scheduler.timeline("daily").of("function_began")
    assert round((second.at - first.at).total_seconds(), -1) == 10
    assert round((third.at - second.at).total_seconds(), -1) == 20
    assert "ConnectionError: down" in str(scheduler.timeline())


def test_what_takes_longer_than_its_timeout_is_timed_out_and_longer_than_a_tick_skips_it(scheduler):
    scheduler.add(Shop(), hourly)
    scheduler.takes("daily", "10m")
    scheduler.takes("hourly", lambda run: "90m" if run.tick.hour == 6 else 0)
    scheduler.advance("1 day")
    assert scheduler.ran("daily", "timed_out") == 1
    (skipped,) = scheduler.runs("hourly", "skipped")
    assert (skipped.tick.hour, skipped.reason) == (7, "overlap")


def test_the_configuration_counts_and_a_job_can_be_run_and_paused_by_hand(scheduler):
    scheduler.add(hourly)
    scheduler.configure(
        jobs=[{"extension": "tests", "job": "hourly", "schedule": "0 */30 * * * *"}]
    )
    assert scheduler.run("hourly").state == "succeeded"
    scheduler.runtime.pause("hourly")
    scheduler.advance("1h45m")
    scheduler.runtime.resume("hourly")
    scheduler.advance("1h")
    assert scheduler.ran("hourly") == 3
    assert scheduler.ran("hourly", "skipped") == 3


def test_an_outage_of_the_database_is_caught_up(scheduler):
    scheduler.add(hourly)
    scheduler.advance("90m")
    scheduler.stop_database()
    scheduler.advance("5h")
    scheduler.start_database()
    scheduler.advance("5m")
    assert scheduler.ran("hourly", "missed") == 4
    assert scheduler.ran("hourly") == 2


def test_a_node_that_dies_is_replaced_and_what_had_begun_is_lost(scheduler, nodes):
    scheduler.add(hourly)
    scheduler.takes("hourly", "2m")
    one, two, three = nodes(3)
    one.crash_at("after_claim")
    two.crash_at("mid_run")
    scheduler.advance("2h30m")
    assert (one.up, two.up, three.up) == (False, False, True)
    assert [str(run.state) for run in scheduler.runs("hourly")] == ["lost", "succeeded"]
    assert [moment.node for moment in scheduler.timeline().of("run_rescued", "run_lost")] == [
        "node2",
        "node3",
    ]


def test_a_degraded_plugin_is_no_start(scheduler):
    @job(schedule="not a schedule")
    def broken() -> None: ...

    scheduler.add(broken)
    with pytest.raises(AssertionError, match="tests:broken"):
        scheduler.advance("1h")


@pytest.mark.parametrize("text", ["", "1 fortnight", "one day", "1d later"])
def test_a_wrong_duration_is_refused(scheduler, text):
    with pytest.raises(ValueError, match="is no duration"):
        scheduler.advance(text)


# --- for those who read ---


def test_a_failed_test_shows_the_time_line(pytester):
    pytester.makepyfile(
        """
        from systemprompt_jobs import job

        @job(schedule="0 0 * * * *")
        def hourly(): ...

        def test_it(scheduler):
            scheduler.add(hourly)
            scheduler.advance("2h")
            assert scheduler.ran("hourly") == 3
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(
        [
            "*2 == 3: there are 2 runs of hourly",
            "*time line of scheduler*",
            "2026-01-01 01:00:00.000 UTC  node1  function_began  *tests:hourly run 1 of 01:00:00",
        ]
    )


def test_a_plugin_that_breaks_the_contract_is_told_where(pytester):
    pytester.makepyfile(
        bad_jobs="""
        from pathlib import Path
        from systemprompt_jobs import job

        @job(schedule="*/5 * * * * *")
        def wipe(ctx, *, folder=""):
            (Path(ctx.config["root"]) / "precious").unlink()

        @job
        def good(*, number: int = 1):
            "Do nothing, but a number of times."

        class Rates: ...

        @job(max_attempts=2, retry_delay="0s", retry_past_next_tick=True)
        def flaky(ctx):
            "Fail, after asking for a service."
            raise ConnectionError(f"attempt {ctx.run.attempt}, rate {ctx.get(Rates)}")
        """,
        test_bad="""
        from bad_jobs import Rates
        from systemprompt_jobs.testing import PluginContract

        class TestBad(PluginContract):
            plugin = "bad_jobs"
            services = {Rates: 1.25}

            def settings(self, root):
                return {"extensions": {"bad_jobs": {"root": str(root)}}}

            def prepare(self, root):
                (root / "precious").touch()
        """,
    )
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=8, failed=5)
    result.stdout.fnmatch_lines_random(
        [
            "*the first line of a docstring describes it*",
            "*five-fields*",
            "*folder has no annotation*",
            "*a dry run of bad_jobs:wipe has changed precious*",
            "*failed: ConnectionError: attempt 1, rate 1.25*",
        ]
    )


def test_pytest_is_not_slowed_down_by_what_a_test_does_not_use():
    code = (
        "import sys, pytest, systemprompt_jobs.testing.plugin; "
        "print([m for m in ('sqlalchemy', 'pydantic', 'alembic', 'svcs') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
