"""The plugin as a whole: what it brings, and that its README speaks the truth."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import systemprompt_jobs_maintenance as plugin
import yaml
from sqlalchemy import Column, Date, DateTime, Integer, LargeBinary, Text, create_engine, text
from sqlalchemy.dialects import postgresql
from systemprompt_jobs_maintenance._expiry import is_past

from systemprompt_jobs import _parameters
from systemprompt_jobs.errors import ParameterError
from systemprompt_jobs.testing import PluginContract

README = (Path(__file__).parents[1] / "README.md").read_text()
JOBS = {job.name: job for job in plugin.jobs()}


def test_it_brings_its_four_jobs_and_the_readme_lists_them():
    listed = re.findall(r"^\| `(\w+)` \| \w+s ", README, re.MULTILINE)
    assert list(JOBS) == listed == ["cleanup", "prune_files", "backup_sqlite", "disk_usage"]


def test_only_cleanup_runs_at_start_up():
    assert [job.name for job in JOBS.values() if job.run_on_startup] == ["cleanup"]


def test_every_parameter_stands_in_the_readme_under_its_job():
    for name, job in JOBS.items():
        section = README.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert tuple(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == _parameters.names(job)


def test_the_configuration_in_the_readme_fits_the_jobs():
    block = re.search(r"```yaml\n(.*?)```", README, re.DOTALL).group(1)
    entries = yaml.safe_load(block)["scheduler"]["jobs"]
    assert [entry["job"] for entry in entries] == list(JOBS)
    for entry in entries:
        assert _parameters.validate(JOBS[entry["job"]], entry["parameters"])


@pytest.mark.parametrize(
    ("job", "parameters"),
    [
        ("cleanup", {"batch": 0}),
        ("cleanup", {"tables": [{"table": "t", "column": "c", "older_then": "1d"}]}),
        ("prune_files", {"keep": -1}),
        ("prune_files", {"patterns": "*.log"}),
        ("prune_files", {"older_than": "-1d"}),
        ("prune_files", {"older_than": "40000d"}),
        ("backup_sqlite", {"keep": 0}),
        ("disk_usage", {"limit": 101}),
    ],
)
def test_values_that_make_no_sense_are_refused_before_a_run(job, parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        _parameters.validate(JOBS[job], parameters)


NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "condition"),
    [
        (DateTime(timezone=True), "at < '2024-05-01 12:00:00+00:00'"),
        (DateTime(), "at < '2024-05-01 12:00:00'"),
        (Date(), "at < '2024-05-01'"),
        (Integer(), "at >= 100000000 AND at < 1714564800.0"),
    ],
)
def test_on_postgresql_the_columns_type_decides_and_an_index_can_be_used(kind, condition):
    clause = is_past(Column("at", kind), NOW, "postgresql")
    dialect = postgresql.dialect()
    assert str(clause.compile(dialect=dialect, compile_kwargs={"literal_binds": True})) == condition


@pytest.mark.parametrize(("kind", "dialect"), [(LargeBinary(), "postgresql"), (Text(), "mysql")])
def test_a_column_that_holds_no_times_is_refused_by_name_and_type(kind, dialect):
    with pytest.raises(TypeError, match=r"column 'at' is (BLOB|TEXT), which holds no times"):
        is_past(Column("at", kind), NOW, dialect)


class TestContract(PluginContract):
    plugin = "systemprompt_jobs_maintenance"

    def settings(self, root):
        parameters = {
            "cleanup": {"tables": [{"table": "visits", "column": "at"}]},
            "prune_files": {"root": str(root), "patterns": ["*.log"], "older_than": "1d"},
            "backup_sqlite": {"folder": str(root / "backups")},
            "disk_usage": {"paths": [str(root)], "limit": 100},
        }
        return {
            "databases": {"default": "sqlite:///app.db"},
            "jobs": [
                {"extension": "maintenance", "job": job, "enabled": True, "parameters": values}
                for job, values in parameters.items()
            ],
        }

    def prepare(self, root):
        old = root / "old.log"
        old.write_text("old")
        os.utime(old, (0, 0))
        engine = create_engine(f"sqlite:///{root / 'app.db'}")
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE visits (id INTEGER PRIMARY KEY, at TEXT)"))
            connection.execute(text("INSERT INTO visits (at) VALUES ('2001-01-01')"))
        engine.dispose()
