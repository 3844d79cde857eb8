"""Whatever stands in a file, it ends in plans or in a ConfigurationError."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from systemprompt_jobs._calendar import parse
from systemprompt_jobs._configure import make_plans, make_warnings
from systemprompt_jobs.errors import ConfigurationError

KEYS = st.sampled_from(
    [
        "enabled",
        "timezone",
        "database",
        "databases",
        "local_plugins",
        "workers",
        "shutdown_grace",
        "lease",
        "retention",
        "retention_runs",
        "unknown_jobs",
        "unlisted_jobs",
        "extensions",
        "jobs",
        "extension",
        "job",
        "name",
        "schedule",
        "parameters",
        "enforce",
        "overlap",
        "limit",
        "shop",
        "<<",
    ]
)
SCALARS = st.one_of(
    st.sampled_from(
        ["shop", "cleanup", "purge", "'*/5", "*", "*", "*", "*", "*'", "*/5", "*", "&", "!", "!!x", "~", "yes", "1e999", "0x1", ".nan", "UTC", "Europe/Nowhere", "sqlite:///x", "2024-01-01", "12:30:00", "30d", "-1", "warn", "skip", "run", "jobs.py", "&a", "*a", "{}", "[]", "'", '"', "@", "%", "\\", "\t"]
    ),
    st.text(max_size=20),
    st.text(min_size=1, max_size=3).map(lambda text: text * 4000),
    st.integers().map(str),
    st.floats().map(str),
)  # fmt: skip


def blocks(children):
    items = st.lists(children, max_size=4).map(lambda items: f"[{', '.join(items)}]")
    pairs = st.lists(st.tuples(KEYS | SCALARS, children), max_size=4)
    return items | pairs.map(lambda ps: "{" + ", ".join(f"{k}: {v}" for k, v in ps) + "}")


FLOW = st.recursive(SCALARS, blocks, max_leaves=20)
SECTIONS = st.lists(st.tuples(KEYS, FLOW), max_size=6).map(
    lambda pairs: "scheduler:\n" + "".join(f"  {key}: {value}\n" for key, value in pairs)
)
FILES = st.one_of(
    SECTIONS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=200),
)


@given(config=FILES, profile=FILES, variable=SCALARS)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(config=b"[" * 10_000, profile=b"{a: " * 10_000, variable="")
@example(config=b"- " * 10_000, profile=b"? " * 10_000, variable="\x00")
@example(config=b"\xff\xfe", profile=b"\xef\xbb\xbfscheduler:", variable="\ud800")
@example(config=b"scheduler: {jobs: [{extension: &a [*a]}]}", profile=b"\x00", variable="1e9")
def test_any_text_ends_well(folder, cleanup, config, profile, variable):
    folder.config_path.write_bytes(config)
    folder.profile_path.write_bytes(profile)
    loaded = folder.settings(TIMEZONE=variable, WORKERS=variable, DATABASE=variable)
    try:
        plans = make_plans(loaded, cleanup, parse)
    except ConfigurationError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
        assert all(len(line) < 1000 for line in str(error).splitlines())  # noqa: PT017
    else:
        assert [plan.id for plan in plans] == ["shop:cleanup"]
    make_warnings(loaded, cleanup)
