"""Layers of settings: each one's effect, who wins, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType

import pytest
from sqlalchemy.engine import make_url

from systemprompt_jobs._configure import find_project, load_settings
from systemprompt_jobs._configure._layers import DEFAULTS
from systemprompt_jobs._configure._schema import Scheduler
from systemprompt_jobs._configure._settings import Settings
from systemprompt_jobs.model import Place, Source


def test_without_files_the_defaults_hold(folder):
    settings = folder.settings()
    assert settings.problems == settings.warnings == settings.entries == ()
    assert {name: getattr(settings, name) for name in DEFAULTS} == {
        "enabled": True,
        "timezone": "UTC",
        "database": f"sqlite:///{folder.root}/var/jobs.db",
        "databases": {},
        "local_plugins": (),
        "workers": 10,
        "executors": {
            "default": {"kind": "threads", "size": 10},
            "asyncio": {"kind": "asyncio"},
            "processes": {"kind": "processes"},
        },
        "shutdown_grace": timedelta(seconds=30),
        "lease": timedelta(seconds=30),
        "health_address": "",
        "retention": timedelta(days=30),
        "retention_runs": 100,
        "unknown_jobs": "error",
        "unlisted_jobs": "run",
        "extensions": {},
    }
    assert settings.sources["lease"] == (Source("30s", "default"),)


def test_every_setting_of_the_schema_has_a_default_and_a_field():
    names = set(Scheduler.model_fields) - {"jobs"}
    assert names == set(DEFAULTS)
    assert names < set(Settings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "config", "profile", "environment"),
    [
        ("enabled", (False, False), (True, True), ("no", False)),
        ("timezone", ("Asia/Tokyo", "Asia/Tokyo"), ("Europe/Oslo", "Europe/Oslo"), ("UTC", "UTC")),
        ("database", ("sqlite:////a", "sqlite:////a"), ("sqlite:////b", "sqlite:////b"), ("sqlite:////c", "sqlite:////c")),
        ("workers", (2, 2), (3, 3), ("4", 4)),
        ("shutdown_grace", ("1m", timedelta(minutes=1)), (5, timedelta(seconds=5)), ("7", timedelta(seconds=7))),
        ("lease", ("1m", timedelta(minutes=1)), ("1s", timedelta(seconds=1)), ("1h", timedelta(hours=1))),
        ("retention", ("7d", timedelta(days=7)), ("2w", timedelta(weeks=2)), ("0", timedelta())),
        ("retention_runs", (0, 0), (5, 5), ("7", 7)),
        ("unknown_jobs", ("warn", "warn"), ("error", "error"), ("warn", "warn")),
        ("unlisted_jobs", ("ignore", "ignore"), ("run", "run"), ("ignore", "ignore")),
    ],
)  # fmt: skip
def test_each_layer_overrides_the_ones_below(folder, name, config, profile, environment):
    folder.write(config=f"scheduler:\n  {name}: {config[0]}\n")
    assert getattr(folder.settings(), name) == config[1]
    folder.write(profile=f"theirs: 1\nscheduler: {{{name}: {profile[0]}}}\n")
    assert getattr(folder.settings(), name) == profile[1]
    settings = folder.settings(**{name.upper(): environment[0]})
    assert getattr(settings, name) == environment[1]
    assert settings.problems == ()
    assert settings.sources[name] == (
        Source(DEFAULTS[name], "default"),
        Source(config[0], "config.yaml", Place(folder.config_path, 2)),
        Source(profile[0], "profile.yaml", Place(folder.profile_path, 2)),
        Source(environment[0], "environment"),
    )


def test_absent_is_not_default(folder):
    folder.write(config="scheduler: {workers: 3}\n", profile="scheduler: {lease: 5s}\n")
    assert folder.settings().workers == 3


def test_databases_merge_by_name_and_their_paths_resolve_against_the_root(folder):
    folder.write(
        config="scheduler: {databases: {a: 'sqlite:///var/a.db', b: 'sqlite:////abs.db'}}\n",
        profile="scheduler: {databases: {b: 'mysql://u:s3cret@h/db', c: 'sqlite://'}}\n",
    )
    settings = folder.settings()
    assert settings.databases == {
        "a": f"sqlite:///{folder.root}/var/a.db",
        "b": "mysql://u:s3cret@h/db",
        "c": "sqlite://",
    }
    assert [source.value for source in settings.sources["databases.b"]] == [
        "sqlite:////abs.db",
        "mysql://u:***@h/db",
    ]
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "resolved"),
    [
        ("sqlite:///jobs.db?timeout=5", "sqlite:///{root}/jobs.db?timeout=5"),
        ("sqlite+pysqlite:///jobs.db", "sqlite+pysqlite:///{root}/jobs.db"),
        ("sqlite:///file:jobs.db?mode=ro&uri=true", "sqlite:///file:{root}/jobs.db?mode=ro&uri=true"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
    ],
)  # fmt: skip
def test_sqlite_urls_keep_all_but_their_relative_path(folder, url, resolved):
    assert make_url(folder.settings(DATABASE=url).database) == make_url(
        resolved.format(root=folder.root)
    )


def test_extensions_sections_merge_by_key(folder):
    folder.write(
        config="scheduler: {extensions: {shop: {a: 1, b: [1, 2]}, mail: {c: 1}}}\n",
        profile="scheduler: {extensions: {shop: {b: [3]}}}\n",
    )
    settings = folder.settings()
    assert settings.extensions == {"shop": {"a": 1, "b": [3]}, "mail": {"c": 1}}
    assert isinstance(settings.extensions["shop"], MappingProxyType)
    assert [s.layer for s in settings.sources["extensions.shop"]] == ["config.yaml", "profile.yaml"]


def test_local_plugins_are_files_or_packages_and_a_higher_list_replaces(folder):
    (folder.root / "jobs.py").touch()
    (folder.root / "pack").mkdir()
    (folder.root / "pack/__init__.py").touch()
    folder.write(config="scheduler: {local_plugins: [jobs.py, pack, jobs.py]}\n")
    assert folder.settings().local_plugins == (folder.root / "jobs.py", folder.root / "pack")
    folder.write(profile="scheduler: {local_plugins: [pack]}\n")
    assert folder.settings().local_plugins == (folder.root / "pack",)


def test_local_plugins_that_cannot_be_trusted_or_found_are_refused_one_by_one(folder):
    for name in ("good.py", "open.py", "jobs.txt", "pack/__init__.py", "pack/deep/open.py"):
        (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / name).touch()
    (folder.root / "open.py").chmod(0o666)
    (folder.root / "pack/deep/open.py").chmod(0o602)
    folder.write(
        config="""\
        scheduler:
          local_plugins:
            - good.py
            - open.py
            - jobs.txt
            - nowhere.py
            - services
            - pack
            - 5
            - ""
        """
    )
    at = "services/scheduler/config.yaml"
    settings = folder.settings()
    assert settings.local_plugins == (folder.root / "good.py",)
    assert folder.short(settings.problems) == [
        f"{at}:4: scheduler.local_plugins[1]: open.py is refused because everybody may write to open.py: chmod o-w open.py",
        f"{at}:5: scheduler.local_plugins[2]: jobs.txt is no .py file",
        f"{at}:6: scheduler.local_plugins[3]: nowhere.py does not exist",
        f"{at}:7: scheduler.local_plugins[4]: services is a folder without an __init__.py",
        f"{at}:8: scheduler.local_plugins[5]: pack is refused because everybody may write to pack/deep/open.py: chmod o-w pack/deep/open.py",
        f"{at}:9: scheduler.local_plugins[6]: is 5, not a path",
        f'{at}:10: scheduler.local_plugins[7]: is "", not a path',
    ]  # fmt: skip


ZONE = "no such zone"
DURATION = "is no duration: write 30s, 5m, 1h30m, 30d or 2w"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("enabled: maybe", 'enabled: is "maybe", not true or false'),
        ("enabled: 2", "enabled: is 2, not true or false"),
        ("timezone: Europe/Berln", f"timezone: timezone 'Europe/Berln': {ZONE}; did you mean Europe/Berlin"),
        ("timezone: ../../etc", f"timezone: timezone '../../etc': {ZONE}; use an IANA name such as 'Europe/Berlin'"),
        ("timezone: Europe", f"timezone: timezone 'Europe': {ZONE}; "),
        ("timezone: 5", "timezone: is 5, not text (put it in quotes)"),
        ("timezone: [UTC]", 'timezone: is ["UTC"], not text'),
        ("database: var/jobs.db", 'database: "var/jobs.db" is no database URL: write sqlite:///var/app.db'),
        ("database: 'mysql://u:s3cret@h/db'", 'database: "mysql://u:***@h/db" is neither SQLite nor PostgreSQL: write sqlite:///var/jobs.db or postgresql+psycopg://user@host/database'),
        ("database: 'sqlite+aiosqlite:///x'", "neither SQLite nor PostgreSQL"),
        ("database: 'postgresql+asyncpg://h/x'", "neither SQLite nor PostgreSQL"),
        ("database: ['postgresql://u:s3cret@h/db']", 'database: is ["postgresql://u:***@h/db"], not text'),
        ("databases: {a: x}", 'databases.a: "x" is no database URL: write sqlite:///var/app.db'),
        ("databases: {a: 'mysql://h:port/x'}", 'databases.a: "mysql://h:port/x" is no database URL'),
        ("databases: {a: {b: c}}", 'databases.a: is {"b": "c"}, not text'),
        ("databases: [a]", 'databases: is ["a"], not a mapping'),
        ("local_plugins: jobs.py", 'local_plugins: is "jobs.py", not a list'),
        ("workers: 0", "workers: is 0, must be at least 1"),
        ("workers: 1001", "workers: is 1001, must be at most 1000"),
        ("workers: many", 'workers: is "many", not a whole number'),
        ("workers: 1.5", "workers: is 1.5, not a whole number"),
        ("workers: yes", "workers: is true, not a whole number"),
        ("workers: [1]", "workers: is [1], not a whole number"),
        ("shutdown_grace: 5x", f"shutdown_grace: '5x' {DURATION}"),
        ("lease: 0.5s", "lease: must be at least 1s"),
        ("lease: yes", f"lease: True {DURATION}"),
        ("retention: 30 days", f"retention: '30 days' {DURATION}"),
        ("retention_runs: -1", "retention_runs: is -1, must be at least 0"),
        ("unknown_jobs: eror", "unknown_jobs: is \"eror\", not 'error' or 'warn'"),
        ("unlisted_jobs: 5", "unlisted_jobs: is 5, not 'run' or 'ignore'"),
        ("extensions: {shop: 5}", "extensions.shop: is 5, not a mapping"),
        ("jobs: {a: b}", 'jobs: is {"a": "b"}, not a list'),
        ("timezne: UTC", "timezne: unknown key (did you mean 'timezone'?)"),
        ("zzzzz: UTC", "zzzzz: unknown key (known are enabled, timezone, database"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_place_value_and_remedy(folder, line, expected):
    folder.write(config=f"scheduler:\n  {line}\n")
    (problem,) = folder.problems()
    assert problem.startswith("services/scheduler/config.yaml:2: scheduler.")
    assert expected in problem
    assert "s3cret" not in problem


def test_a_wrong_value_leaves_the_layer_below_in_force_and_hides_no_other(folder):
    folder.write(
        config="scheduler: {workers: 3, databases: {ok: 'sqlite://'}}\n",
        profile="scheduler:\n  workers: many\n  lease: 5s\n  timezone: Nowhere\n",
    )
    settings = folder.settings()
    assert (settings.workers, settings.lease) == (3, timedelta(seconds=5))
    assert [p.culprit for p in settings.problems] == ["scheduler.workers", "scheduler.timezone"]


def test_problems_come_in_the_order_of_files_and_lines(folder):
    folder.write(
        config="scheduler:\n  workers: 0\n  jobs:\n    - 5\n  lease: x\n",
        profile="scheduler:\n  lease: y\n",
    )
    assert [problem.partition(": ")[0] for problem in folder.problems(TIMEZONE="Nowhere")] == [
        "services/scheduler/config.yaml:2",
        "services/scheduler/config.yaml:4",
        "services/scheduler/config.yaml:5",
        "profile.yaml:2",
        "SYSTEMPROMPT_JOBS__TIMEZONE",
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("TIMZONE", "UTC", "TIMZONE: unknown setting (did you mean 'SYSTEMPROMPT_JOBS__TIMEZONE'?)"),
        ("timezone", "UTC", "timezone: unknown setting (did you mean 'SYSTEMPROMPT_JOBS__TIMEZONE'?)"),
        ("DATABASES", "{}", "DATABASES: cannot be set here (set it in a file)"),
        ("JOBS", "[]", "JOBS: cannot be set here (set it in a file)"),
        ("ZZZ", "", "ZZZ: unknown setting (did you mean"),
        ("WORKERS", "", 'WORKERS: is "", not a whole number'),
        ("ENABLED", "", 'ENABLED: is "", not true or false'),
        ("TIMEZONE", "\udcff", "TIMEZONE: is '\\udcff', not plain text"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(folder, key, value, expected):
    (problem,) = folder.problems(**{key: value})
    assert problem.startswith(f"SYSTEMPROMPT_JOBS__{expected}")


def test_a_file_with_the_wrong_ending_is_a_warning(folder):
    folder.profile_path.with_suffix(".yml").touch()
    assert folder.short(folder.settings().warnings) == [
        "profile.yml: profile.yml: is not read (call it profile.yaml)"
    ]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("5", "jobs[0]: is 5, not a mapping such as `extension: my-extension`"),
        ("{extension: shop}", "jobs[0]: names no job (add `job: its-name`)"),
        ("{extension: shop, job: a, name: b}", 'jobs[0]: has job: "a" and name: "b" (remove the wrong one)'),
        ("{extension: shop, job: 5}", "jobs[0].job: is 5, not text (put it in quotes)"),
        ("{extension: '', job: a}", 'jobs[0].extension: is "", must not be empty'),
        ("{extension: 5, job: a}", "jobs[0].extension: is 5, not text (put it in quotes)"),
        ("{extension: shop, job: a, enabled: 5}", "jobs[0].enabled: is 5, not true or false"),
        ("{extension: shop, job: a, schedule: 5}", "jobs[0].schedule: is 5, not text (put it in quotes)"),
        ("{extension: shop, job: a, timezone: X}", "jobs[0].timezone: timezone 'X': no such zone"),
        ("{extension: shop, job: a, parameters: [1]}", "jobs[0].parameters: is [1], not a mapping"),
        ("{extension: shop, job: a, enforce: maybe}", 'jobs[0].enforce: is "maybe", not true or false'),
        ("{extension: shop, job: a, overlap: wait}", "jobs[0].overlap: is \"wait\", not 'skip', 'queue' or 'allow'"),
        ("{extension: shop, job: a, max_attempts: 0}", "jobs[0].max_attempts: is 0, must be at least 1"),
        ("{extension: shop, job: a, retry_factor: .5}", "jobs[0].retry_factor: is 0.5, must be at least 1"),
        ("{extension: shop, job: a, retry_factor: two}", 'jobs[0].retry_factor: is "two", not a number'),
        ("{extension: shop, job: a, retry_on: ValeuError}", "jobs[0].retry_on: \"ValeuError\" is no built-in exception type: did you mean 'ValueError'?"),
        ("{extension: shop, job: a, retry_on: [a b]}", 'jobs[0].retry_on: "a b" is no name of an exception type'),
        ("{extension: shop, job: a, give_up_on: 5}", "jobs[0].give_up_on: is 5, not the name of an exception type"),
        ("{extension: shop, job: a, concurrency: {key: api, limit: 0}}", 'jobs[0].concurrency: is {"key": "api", "limit": 0}: write {key: api, limit: 2}'),
        ("{extension: shop, job: a, concurrency: api}", 'jobs[0].concurrency: is "api": write {key: api, limit: 2}'),
        ("{extension: shop, job: a, scedule: x}", "jobs[0].scedule: unknown key (did you mean 'schedule'?)"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_with_path_and_remedy(folder, item, expected):
    folder.write(config=f"scheduler:\n  jobs:\n    - {item}\n")
    (problem,) = folder.problems()
    assert problem.startswith(f"services/scheduler/config.yaml:3: scheduler.{expected}")


def test_job_and_name_may_agree(folder):
    folder.write(config="scheduler: {jobs: [{extension: shop, job: a, name: a}]}\n")
    (entry,) = folder.settings().entries
    assert (folder.problems(), entry.id, entry.path) == ([], "shop:a", "scheduler.jobs[0]")


def test_databases_and_sections_may_refer_to_variables_and_files(folder):
    folder.write(
        """
        scheduler:
          database: {env: JOBS_DB}
          databases: {default: {file: secrets/app-db}}
          extensions: {mail: {password: {env: MAIL}}}
        """
    )
    (folder.root / "secrets").mkdir()
    (folder.root / "secrets/app-db").write_text("sqlite:////srv/app.db\n")
    project = find_project(folder.root, {}, folder.root)
    environ = {"JOBS_DB": "postgresql://ann:hunter2@db/jobs", "MAIL": "swordfish"}
    settings = load_settings(project, environ)
    assert settings.problems == ()
    assert settings.database == "postgresql://ann:hunter2@db/jobs"
    assert settings.databases["default"] == "sqlite:////srv/app.db"
    assert settings.extensions["mail"]["password"] == "swordfish"
    shown = str(settings.sources)
    assert "hunter2" not in shown
    assert "swordfish" not in shown
    assert "JOBS_DB" in shown


def test_a_variable_that_is_not_set_is_a_mistake_at_its_line(folder):
    folder.write("scheduler:\n  workers: 3\n  database: {env: SURELY_NOT_SET}\n")
    (problem,) = folder.problems()
    assert problem.endswith("variable SURELY_NOT_SET is not set")
    assert problem.startswith("services/scheduler/config.yaml:3: scheduler.database: ")
