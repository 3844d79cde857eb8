"""What `doctor` finds: each thing that can be wrong, with a remedy, and nothing is changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from types import SimpleNamespace

import pytest

from systemprompt_jobs import Runtime, hookimpl
from systemprompt_jobs._context import Resources
from systemprompt_jobs._examine import Patient, _zone_data, examine
from systemprompt_jobs._rows import manual_key, run_values
from systemprompt_jobs._services import ServiceRegistry
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs.model import Trigger
from tests.support import START, ManualClock, make_plan


class Services:
    """A plugin with one service that answers, one that does not, and one that is never asked."""

    @hookimpl
    def register_services(self, registry):
        def refuse(_):
            raise ConnectionRefusedError("nobody listens")

        async def answers(_):
            """Answer."""

        registry.register_value(str, "well", ping=answers)
        registry.register_value(int, 1, ping=refuse)
        registry.register_value(bytes, b"")


@pytest.fixture
def found(tmp_path):
    """Return a function: what is found, by subject."""

    def found(config="", plugins=()):
        (tmp_path / "profile.yaml").write_text("scheduler:\n  enabled: true\n" + config)
        runtime = Runtime(tmp_path, plugins=plugins, environ={"SYSTEMPROMPT_PLUGINS": ""})
        findings = runtime.examine()
        runtime.stop()
        return {finding.subject: finding for finding in findings}

    return found


def test_a_database_that_does_not_exist_yet_is_not_made(found, tmp_path):
    finding = found()["scheduler's database"]
    assert not finding.ok
    assert finding.said.endswith("var/jobs.db does not exist yet")
    assert "serve" in finding.remedy
    assert not (tmp_path / "var").exists()


def test_an_empty_database_has_no_tables_yet(found, postgresql):
    finding = found(f"  database: {postgresql}\n")["scheduler's database"]
    assert not finding.ok
    assert finding.said.endswith(" has no tables yet")


def test_all_is_well_where_a_scheduler_runs(found, tmp_path):
    (tmp_path / "profile.yaml").write_text("scheduler: {}\n")
    with Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": ""}):
        assert [*found()] == [
            *(
                "scheduler's database",
                "recording",
                "clock",
                "schedulers",
                "orphaned jobs",
                "leases",
            ),
            *("file permissions", "time zone data"),
        ]
        well = {
            finding.subject for finding in found().values() if finding.ok and not finding.remedy
        }
        assert well >= {*found()} - {"time zone data"}  # of whoever tests this
    finding = found()["schedulers"]
    assert (finding.ok, finding.said) == (False, "none is live, so no tick runs")


def test_a_database_that_can_be_read_and_not_written_says_why(found, tmp_path):
    """As when the disk is full: that is not seen by reading."""
    (tmp_path / "profile.yaml").write_text("scheduler: {lease: 1s}\n")
    runtime = Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": ""})
    runtime.upgrade()
    assert found("  lease: 1s\n")["recording"].ok
    with closing(sqlite3.connect(tmp_path / "var/jobs.db")) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        findings = found("  lease: 1s\n")
        said = runtime.status().problem
    assert findings["scheduler's database"].ok
    assert not findings["recording"].ok
    assert "has been locked by another process" in findings["recording"].said
    assert "go on by themselves" in findings["recording"].remedy
    assert "has been locked by another process" in said
    assert runtime.status().problem == ""
    runtime.stop()


def test_looking_whether_it_can_be_written_leaves_nothing_behind(store):
    store.check_writing()
    store.check_writing()
    store.check()


def test_a_database_that_cannot_be_used_says_why(found, tmp_path):
    (tmp_path / "var/jobs.db").mkdir(parents=True)
    findings = found()
    assert not findings["scheduler's database"].ok
    assert "clock" not in findings


@pytest.mark.parametrize(
    ("url", "ok", "said"),
    [
        ("sqlite:///app.db", True, "does not exist yet; it is made when it is first used"),
        ("sqlite:///no/folder/app.db", False, "there is no folder"),
        ("postgresql+psycopg://me:secret@localhost:1/x", False, "OperationalError"),
    ],
)
def test_each_database_of_jobs_is_tried_and_no_file_is_made(found, tmp_path, url, ok, said):
    finding = found(f"  databases: {{default: '{url}'}}\n")["database 'default'"]
    assert (finding.ok, finding.remedy == "") == (ok, ok)
    assert said in finding.said
    assert "secret" not in finding.said
    assert not (tmp_path / "app.db").exists()


def test_a_database_that_answers_is_reachable(found, tmp_path):
    (tmp_path / "app.db").touch()
    finding = found("  databases: {default: 'sqlite:///app.db'}\n")["database 'default'"]
    assert finding.said.endswith("app.db is reachable")


def test_services_are_asked_that_have_a_check(found):
    findings = found(plugins=[Services()])
    services = {name: f for name, f in findings.items() if name.startswith("service ")}
    assert {name: f.ok for name, f in services.items()} == {
        "service builtins.int": False,
        "service builtins.str": True,
    }
    finding = services["service builtins.int"]
    assert finding.said == "ConnectionRefusedError: nobody listens"
    assert "ping=" in finding.remedy


@pytest.mark.parametrize(
    ("offset", "ok", "said"),
    [(0.25, True, "0.250 s ahead of the database's"), (-3, False, "3.000 s behind the database's")],
)
def test_a_clock_that_differs_too_much_from_the_databases_is_wrong(make_store, offset, ok, said):
    clock = ManualClock()
    clock.offset = timedelta(seconds=offset)
    store = make_store("sqlite")
    store.clock = lambda _: clock
    resources = Resources({}, ServiceRegistry())
    findings = {f.subject: f for f in examine(Patient(store, resources, clock, list))}
    assert (findings["clock"].ok, findings["clock"].said) == (ok, said)
    assert (findings["clock"].remedy == "") == ok


JOB = "from systemprompt_jobs import job\n@job\ndef gone(): ...\n"


def test_a_job_that_nobody_provides_any_more_is_named(found, tmp_path):
    (tmp_path / "jobs.py").write_text(JOB)
    (tmp_path / "jobs.py").chmod(0o644)
    (tmp_path / "profile.yaml").write_text("scheduler: {local_plugins: [jobs.py]}\n")
    with Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": ""}):
        assert found("  local_plugins: [jobs.py]\n")["orphaned jobs"].ok
    finding = found()["orphaned jobs"]
    assert (finding.ok, finding.said) == (
        False,
        "no live scheduler and no plugin here provides jobs:gone",
    )
    assert "aliases=" in finding.remedy


@pytest.mark.parametrize(("live", "remedy"), [([], "start a scheduler"), ([None], "the log")])
def test_runs_that_nobody_rescues_are_named(store, live, remedy):
    clock = ManualClock()
    store.clock = lambda _: clock
    held = {"node": "n", "lease_until": clock.lease_now()}
    with store.write() as connection:
        values = run_values(make_plan(), manual_key(), Trigger.MANUAL, clock.now())
        run_rows.add(connection, [values | held])
    schedulers = lambda: [SimpleNamespace(id="n") for _ in live]  # noqa: E731
    patient = Patient(store, Resources({}, ServiceRegistry()), clock, schedulers)
    clock.advance(60)
    assert {f.subject: f for f in examine(patient)}["leases"].ok  # it may be rescued just now
    clock.advance(1)
    finding = {f.subject: f for f in examine(patient)}["leases"]
    assert (finding.ok, finding.said) == (False, "held by nodes that have died: run 1")
    assert remedy in finding.remedy


def test_files_that_others_may_read_or_write_are_named_with_the_command_that_mends_them(
    found, tmp_path
):
    database, profile = tmp_path / "var/jobs.db", tmp_path / "profile.yaml"
    runtime = Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": ""})
    runtime.upgrade()
    runtime.stop()
    assert found()["file permissions"].ok
    database.chmod(0o640)
    profile.chmod(0o646)
    finding = found()["file permissions"]
    assert not finding.ok
    assert finding.remedy.startswith(f"chmod 600 {database}; ")
    assert finding.remedy.endswith(f"; chmod o-w {profile}")


@pytest.mark.parametrize(
    ("version", "ok"),
    [("# version 2025b", True), ("2024.2", False), ("# version 2019a", False), ("unknown", True)],
)
def test_zone_data_that_is_years_old_is_named(version, ok):
    finding = _zone_data(START, version)
    assert finding.ok == ok
    assert version.removeprefix("# version ") in finding.said
    assert ("tzdata" in finding.remedy) != ok


def test_a_database_of_an_older_schema_is_named_with_what_migrates_it(found, tmp_path):
    (tmp_path / "var").mkdir()
    sqlite3.connect(tmp_path / "var/jobs.db").close()
    (tmp_path / "var/jobs.db").write_bytes(b"")
    finding = found()["scheduler's database"]
    assert not finding.ok
    assert "has no schema yet" in finding.said
    assert "systemprompt infra jobs db upgrade" in finding.remedy
