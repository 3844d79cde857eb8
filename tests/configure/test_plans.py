"""Plans: what holds for each job, who set it, and whose mistake is whose."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from pathlib import PurePath

import pytest

from systemprompt_jobs import job
from systemprompt_jobs._calendar import cron
from systemprompt_jobs._configure import make_plans, make_warnings
from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.model import (
    CatchUp,
    Collection,
    Concurrency,
    Extension,
    Overlap,
    Place,
    Problem,
    RetryPolicy,
    Source,
)

AT = "services/scheduler/config.yaml"
INBOX = PurePath("inbox")


class Colour(Enum):
    RED = "red"


def entries(*items, head=""):
    return f"scheduler:\n  jobs:\n{head}" + "".join(f"    - {item}\n" for item in items)


def test_jobs_of_one_function_that_are_alike_have_plans_of_their_own(folder, make_collection):
    def function(*, limit: float | None = None): ...

    def twin(name, **values):
        return job(name=name, schedule="0 0 * * * *", **values)(function)

    plain, other, late = twin("plain"), twin("other"), twin("late", timezone="Europe/Berlin")
    one, true = twin("one", parameters={"limit": 1}), twin("true", parameters={"limit": True})
    tight = twin("tight", concurrency={"key": "k", "limit": 1})
    folder.write(entries("{extension: shop, job: other, enabled: false}"))
    plans = folder.plans(make_collection(plain, other, twin("third"), late, one, true, tight))
    assert [(id_, plan.id, plan.job.name) for id_, plan in plans.items()] == [
        (f"shop:{name}", f"shop:{name}", name)
        for name in ("plain", "other", "third", "late", "one", "true", "tight")
    ]
    assert plans["shop:third"].sources is plans["shop:plain"].sources
    assert [plan.enabled for plan in plans.values()] == [True, False] + [True] * 5
    assert plans["shop:late"].timezone == "Europe/Berlin"
    assert plans["shop:third"].timezone == "UTC"
    assert plans["shop:one"].parameters["limit"] is not plans["shop:true"].parameters["limit"]
    assert plans["shop:tight"].concurrency == Concurrency("k", 1)
    assert plans["shop:third"].concurrency is None


def test_of_jobs_that_are_alike_each_is_told_what_is_wrong_with_it(folder, make_collection):
    def function(): ...

    wrong = [job(name=name, schedule="never")(function) for name in ("a", "b")]
    problems = [plan.problem for plan in folder.plans(make_collection(*wrong)).values()]
    assert [problem.culprit for problem in problems] == ["shop:a", "shop:b"]


def test_without_files_the_decorator_and_the_defaults_hold(folder, cleanup):
    plan = folder.plans(cleanup)["shop:cleanup"]
    assert plan.schedule == cron("0 0 * * * *", timezone="UTC")
    assert (plan.enabled, plan.enforce, plan.starts_up, plan.listed) == (True, False, False, False)
    assert (plan.timezone, plan.overlap, plan.problem) == ("UTC", Overlap.SKIP, None)
    assert (plan.parameters, plan.config) == ({}, {})
    by_job = plan.job.place
    assert plan.sources == {
        "enabled": (Source(True, "default"),),
        "schedule": (Source("0 0 * * * *", "job", by_job),),
        "timezone": (Source("UTC", "default"),),
        "enforce": (Source(False, "default"),),
        "overlap": (Source("skip", "default"),),
        "splay": (Source("0s", "default"),),
        "catch_up": (Source("latest", "default"),),
        "catchup_window": (Source("24h", "default"),),
        "silence": (Source([], "default"),),
        "timeout": (Source("none", "default"),),
        "max_attempts": (Source(1, "default"),),
        "retry_delay": (Source("10s", "default"),),
        "retry_factor": (Source(2.0, "default"),),
        "retry_max_delay": (Source("1h", "default"),),
        "retry_past_next_tick": (Source(False, "default"),),
        "retry_on": (Source([], "default"),),
        "give_up_on": (Source([], "default"),),
        "repeatable": (Source(value=False, layer="default"),),
        "concurrency": (Source(None, "default"),),
        "executor": (Source("default", "default"),),
        "parameters.limit": (Source(5, "job", by_job),),
    }


def test_files_override_value_by_value_and_every_source_is_kept(folder, make_collection):
    @job(schedule="0 0 * * * *", parameters={"limit": 6}, overlap="allow")
    def cleanup(*, limit: int = 5, tags: list[str] = ()): ...

    folder.write(
        config=entries(
            "{extension: shop, job: cleanup, schedule: 0 5 * * * *, enforce: yes,"
            " parameters: {limit: 7, tags: [a, b]}}"
        ),
        profile=entries("{extension: shop, name: cleanup, overlap: skip, parameters: {tags: [c]}}"),
    )
    plan = folder.plans(make_collection(cleanup))["shop:cleanup"]
    assert plan.schedule == cron("0 5 * * * *", timezone="UTC")
    assert (plan.enforce, plan.overlap, plan.listed) == (True, Overlap.SKIP, True)
    assert plan.parameters == {"limit": 7, "tags": ["c"]}
    assert plan.sources["parameters.limit"] == (
        Source(5, "job", cleanup.place),
        Source(6, "job", cleanup.place),
        Source(7, "config.yaml", Place(folder.config_path, 3)),
    )
    assert [source.layer for source in plan.sources["overlap"]] == ["job", "profile.yaml"]
    assert plan.sources["overlap"][-1].place == Place(folder.profile_path, 3)


def test_an_empty_schedule_means_by_hand_only(folder, cleanup):
    folder.write(config=entries("{extension: shop, job: cleanup, schedule: ''}"))
    assert folder.plans(cleanup)["shop:cleanup"].schedule is None


@pytest.mark.parametrize(
    ("entry", "decorator", "own", "settings", "expected"),
    [
        ("Asia/Tokyo", "Europe/Oslo", "Europe/Rome", "UTC", "Asia/Tokyo"),
        (None, "Europe/Oslo", "Europe/Rome", "UTC", "Europe/Oslo"),
        (None, None, "Europe/Rome", "UTC", "Europe/Rome"),
        (None, None, None, "America/Lima", "America/Lima"),
    ],
)
def test_the_nearest_time_zone_wins(
    folder, make_collection, entry, decorator, own, settings, expected
):
    @job(schedule=cron("0 0 12 * * *", timezone=own), timezone=decorator)
    def noon(): ...

    @job(schedule="0 0 12 * * *", timezone=decorator or own)
    def text(): ...

    zone = f", timezone: {entry}" if entry else ""
    folder.write(config=f"scheduler:\n  timezone: {settings}\n" + entries(
        f"{{extension: shop, job: noon{zone}}}", f"{{extension: shop, job: text{zone}}}"
    ).removeprefix("scheduler:\n"))  # fmt: skip
    for plan in folder.plans(make_collection(noon, text)).values():
        assert plan.timezone == expected
        assert plan.schedule == cron("0 0 12 * * *", timezone=expected)


@pytest.mark.parametrize(
    ("declared", "config", "profile", "starts"),
    [
        (True, "enabled: true", None, True),
        (True, "enabled: true", "enabled: true", True),
        (True, "enabled: true", "enforce: true", True),
        (True, "enabled: true", "enabled: false", False),
        (True, "enabled: false", "enabled: true", False),
        (True, "enforce: true", "enabled: true", False),
        (True, None, "enabled: true", False),
        (True, None, None, False),
        (False, "enabled: true", None, False),
    ],
)
def test_a_start_up_run_needs_the_author_and_operations(
    folder, make_collection, declared, config, profile, starts
):
    @job(run_on_startup=declared)
    def warm(): ...

    both = [
        text and entries(f"{{extension: shop, job: warm, {text}}}") for text in (config, profile)
    ]
    folder.write(*both)
    assert folder.plans(make_collection(warm))["shop:warm"].starts_up is starts


def test_no_start_up_run_while_the_scheduler_is_off(folder, make_collection):
    @job(run_on_startup=True)
    def warm(): ...

    folder.write(config=entries("{extension: shop, job: warm, enabled: true}"))
    assert not folder.plans(make_collection(warm), ENABLED="false")["shop:warm"].starts_up


def test_scheduler_enabled_false_switches_every_job_off_and_says_where(folder, cleanup):
    folder.write(config="scheduler:\n  enabled: false\n  jobs: [{extension: shop, job: cleanup, enabled: true}]\n")  # fmt: skip
    plan = folder.plans(cleanup)["shop:cleanup"]
    assert not plan.enabled
    assert plan.sources["enabled"][-1] == Source(
        value=False, layer="config.yaml", place=Place(folder.config_path, 2)
    )


def test_unlisted_jobs_may_be_ignored(folder, make_collection):
    @job
    def listed(): ...

    @job
    def unlisted(): ...

    folder.write(
        config="scheduler: {unlisted_jobs: ignore}\n",
        profile=entries("{extension: shop, job: listed}"),
    )
    plans = folder.plans(make_collection(listed, unlisted))
    assert plans["shop:listed"].enabled
    assert not plans["shop:unlisted"].enabled
    assert plans["shop:unlisted"].sources["enabled"][-1].place == Place(folder.config_path, 1)


def test_an_extension_gets_its_own_section(folder, cleanup):
    folder.write(config="scheduler: {extensions: {shop: {url: x}}}\n")
    assert folder.plans(cleanup)["shop:cleanup"].config == {"url": "x"}


def test_former_names_still_apply(folder, make_collection):
    @job(aliases=["purge", "old-shop:tidy"])
    def cleanup(): ...

    folder.write(
        config=entries("{extension: shop, job: purge, enforce: true}"),
        profile=entries("{extension: old-shop, job: tidy, enabled: false}"),
    )
    plan = folder.plans(make_collection(cleanup))["shop:cleanup"]
    assert (plan.enforce, plan.enabled) == (True, False)


def test_a_name_of_today_goes_before_a_former_one(folder, make_collection):
    @job
    def tidy(): ...

    @job(aliases=["tidy"])
    def cleanup(): ...

    folder.write(config=entries("{extension: shop, job: tidy, enabled: false}"))
    plans = folder.plans(make_collection(cleanup, tidy))
    assert (plans["shop:tidy"].enabled, plans["shop:cleanup"].enabled) == (False, True)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["{extension: shop, job: cleanpu}"], f"{AT}:3: scheduler.jobs[0]: the extension shop has no job \"cleanpu\" (did you mean 'cleanup'?)"),
        (["{extension: shop, job: zzz}"], f'{AT}:3: scheduler.jobs[0]: the extension shop has no job "zzz" (there is cleanup)'),
        (["{extension: shpo, job: cleanup}"], f"{AT}:3: scheduler.jobs[0]: no extension \"shpo\" is installed (did you mean 'shop'?)"),
        (["{extension: jobs, job: tidy}"], f'{AT}:3: scheduler.jobs[0]: no extension "jobs" is installed (there is shop; files of the project\'s own load where `local_plugins` lists them)'),
        (["{job: cleanup}"], f'{AT}:3: scheduler.jobs[0]: names no extension for the job "cleanup" (add `extension: shop`)'),
        (["{job: other}"], f'{AT}:3: scheduler.jobs[0]: names no extension for the job "other" (add `extension: its-plugin`)'),
        (["{extension: shop, job: cleanup}", "{extension: shop, job: purge}"], f'{AT}:4: scheduler.jobs[1]: is a second entry for "shop:cleanup", the first is in line 3 (merge them)'),
        (["{extension: shop, job: cleanup, schedule: '*/5 * * * *'}"], f"{AT}:3: scheduler.jobs[0].schedule: schedule '*/5 * * * *': 5 fields given; seconds come first: try '0 */5 * * * *'"),
        (["{extension: shop, job: cleanup, parameters: {limit: x}}"], f'{AT}:3: scheduler.jobs[0].parameters.limit: limit: "x" does not fit int: input should be a valid integer, unable to parse string as an integer'),
        (["{extension: shop, job: cleanup, parameters: {limt: 1}}"], f"{AT}:3: scheduler.jobs[0].parameters.limt: \"limt\" is no parameter: did you mean 'limit'?"),
        (["{extension: shop, job: cleanup, parameters: {'a b': 1}}"], f'{AT}:3: scheduler.jobs[0].parameters."a b": "a b" is no parameter: the job takes limit'),
    ],
)  # fmt: skip
def test_a_mistake_in_an_entry_is_explained(folder, cleanup, items, expected):
    folder.write(config=entries(*items))
    assert folder.refusal(cleanup) == [expected]


def test_an_unknown_extensions_section_is_a_mistake(folder, cleanup):
    folder.write(config="scheduler:\n  extensions:\n    shpo: {}\n")
    assert folder.refusal(cleanup) == [
        f"{AT}:3: scheduler.extensions.shpo: no extension \"shpo\" is installed (did you mean 'shop'?)"
    ]


def test_all_mistakes_come_at_once_in_file_order(folder, cleanup):
    folder.write(
        config=entries(
            "{extension: shop, job: cleanup, schedule: x}",
            "{extension: shop, job: clean, enabled: maybe}",
        )
        + "  workers: 0\n",
        profile=entries("{extension: shop, job: cleanup, schedule: y, parameters: {limit: x}}"),
    )
    assert [problem.partition(": ")[0] for problem in folder.refusal(cleanup)] == [
        f"{AT}:3",
        f"{AT}:4",
        f"{AT}:4",
        f"{AT}:5",
        "profile.yaml:3",
        "profile.yaml:3",
    ]


def test_a_wrong_schedule_is_found_below_a_right_one(folder, cleanup):
    folder.write(
        config=entries("{extension: shop, job: cleanup, schedule: wrong}"),
        profile=entries("{extension: shop, job: cleanup, schedule: 0 0 0 * * *}"),
    )
    assert len(folder.refusal(cleanup)) == 1


def test_unknown_jobs_may_be_warnings(folder, cleanup):
    folder.write(
        config="scheduler:\n  unknown_jobs: warn\n  extensions: {x: {}}\n  jobs: [{extension: shop, job: x}]\n"
    )
    assert folder.plans(cleanup)["shop:cleanup"].enabled
    warnings = folder.short(make_warnings(folder.settings(), cleanup))
    assert [warning.partition(": ")[0] for warning in warnings] == [f"{AT}:3", f"{AT}:4"]


def test_entries_of_broken_or_blocked_extensions_are_warnings(folder, cleanup):
    collection = Collection(
        (*cleanup.extensions, Extension("broken", "broken")),
        cleanup.jobs,
        blocked=("blocked",),
        degraded={
            "broken": Problem("broken", "cannot be imported"),
            "shop:twin": Problem("shop:twin", "is defined twice"),
        },
    )
    folder.write(
        config="""\
        scheduler:
          extensions: {broken: {}, blocked: {}}
          jobs:
            - {extension: broken, job: any}
            - {extension: blocked, job: any}
            - {extension: shop, job: twin}
        """
    )
    assert folder.plans(collection)["shop:cleanup"].problem is None
    assert folder.short(make_warnings(folder.settings(), collection)) == [
        f"{AT}:4: scheduler.jobs[0]: has no effect: broken is degraded: cannot be imported",
        f"{AT}:5: scheduler.jobs[1]: has no effect: the extension blocked is blocked",
        f"{AT}:6: scheduler.jobs[2]: has no effect: shop:twin is degraded: is defined twice",
    ]


class Broken:
    """A schedule whose every part fails."""

    def __getattr__(self, name):
        raise RuntimeError("no idea")


class Stubborn(Broken):
    """A schedule that can be shown but not moved to another zone."""

    text, timezone = "stubborn", None


def two(a, b): ...
def typed(*, n: int = 1, when: timedelta = timedelta(1)): ...


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        (typed, {"schedule": "* * * * *"}, "schedule '* * * * *': 5 fields given"),
        (typed, {"splay": "soon"}, "splay: "),
        (typed, {"timezone": "Nowhere"}, "timezone 'Nowhere': no such zone"),
        (typed, {"parameters": {"n": "x"}}, 'n: "x" does not fit int'),
        (typed, {"parameters": {"m": 1}}, '"m" is no parameter'),
        (typed, {"parameters": {"when": timedelta(1)}}, 'when: "datetime.timedelta(days=1)" is no plain value'),
        (two, {}, "it takes b, which no run could pass"),
    ],
)  # fmt: skip
def test_an_authors_mistake_degrades_that_job_alone(
    folder, cleanup, make_collection, function, arguments, reason
):
    flawed = job(**arguments)(function)
    plans = folder.plans(make_collection(flawed, *(each.job for each in cleanup.jobs)))
    problem = plans[f"shop:{function.__name__}"].problem
    assert problem.reason.startswith(reason)
    assert problem.place == flawed.place
    assert plans["shop:cleanup"].problem is None


@pytest.mark.parametrize("kind", [Broken, Stubborn])
def test_a_schedule_object_that_raises_degrades_its_job(folder, make_collection, kind):
    declared = job()(typed)
    object.__setattr__(declared, "schedule", kind())
    plan = folder.plans(make_collection(declared))["shop:typed"]
    assert plan.problem.reason == "schedule: RuntimeError('no idea')"
    assert plan.schedule is None


def test_a_plugins_syntax_that_raises_degrades_the_job(folder, cleanup):
    def parse(text, timezone):
        raise RuntimeError("no idea")

    folder.write(config=entries("{extension: shop, job: cleanup, schedule: 'solar: noon'}"))
    (plan,) = make_plans(folder.settings(), cleanup, parse)
    assert plan.problem.reason == "schedule: RuntimeError('no idea')"


def test_an_operator_can_mend_a_wrong_declaration(folder, make_collection):
    flawed = job(schedule="* *", timezone="Nowhere")(typed)
    folder.write(
        config=entries("{extension: shop, job: typed, schedule: 0 0 0 * * *, timezone: UTC}")
    )
    assert folder.plans(make_collection(flawed))["shop:typed"].problem is None


def test_what_collection_found_wrong_is_the_plans_problem(folder, cleanup):
    problem = Problem("shop:cleanup", "is defined twice")
    collection = Collection(cleanup.extensions, cleanup.jobs, (), {"shop:cleanup": problem})
    assert folder.plans(collection)["shop:cleanup"].problem is problem


@pytest.mark.parametrize(
    ("schedule", "text", "missing"),
    [
        ("0 0 0 * * *", "enabled: true", True),
        ("0 0 0 * * *", "enabled: false", False),
        ("0 0 0 * * *", "parameters: {n: 1}", False),
        ("", "enforce: true", False),
        ("", "enabled: true", True),
    ],
)
def test_a_missing_parameter_degrades_what_the_scheduler_would_start(
    folder, make_collection, schedule, text, missing
):
    @job(schedule=schedule, run_on_startup=True)
    def needs(*, n: int): ...

    folder.write(config=entries(f"{{extension: shop, job: needs, {text}}}"))
    problem = folder.plans(make_collection(needs))["shop:needs"].problem
    reason = "parameters without a value: n; set them in config.yaml"
    assert problem == (Problem("shop:needs", reason, needs.place) if missing else None)


def test_splay_is_layered_like_every_value(folder, make_collection):
    @job(schedule="0 0 * * * *", splay="5m")
    def cleanup(): ...

    collection = make_collection(cleanup)
    assert folder.plans(collection)["shop:cleanup"].splay == timedelta(minutes=5)
    folder.write(config=entries("{extension: shop, job: cleanup, splay: 90}"))
    assert folder.plans(collection)["shop:cleanup"].splay == timedelta(seconds=90)


def test_files_override_how_a_job_catches_up(folder, make_collection):
    @job(schedule="0 0 * * * *", catch_up="all", catchup_window="2h")
    def cleanup(): ...

    declared = folder.plans(make_collection(cleanup))["shop:cleanup"]
    assert (declared.catch_up, declared.catchup_window) == (CatchUp.ALL, timedelta(hours=2))
    folder.write(
        config=entries("{extension: shop, job: cleanup, catch_up: none}"),
        profile=entries("{extension: shop, job: cleanup, catchup_window: 5m}"),
    )
    plan = folder.plans(make_collection(cleanup))["shop:cleanup"]
    assert (plan.catch_up, plan.catchup_window) == (CatchUp.NONE, timedelta(minutes=5))
    assert [source.layer for source in plan.sources["catchup_window"]] == ["job", "profile.yaml"]


@pytest.mark.parametrize(
    ("window", "reason"), [("soon", "'soon' is no duration"), ("0s", "must be at least 1s")]
)
def test_an_authors_wrong_window_degrades_the_job(folder, make_collection, window, reason):
    @job(schedule="0 0 * * * *", catchup_window=window)
    def cleanup(): ...

    problem = folder.plans(make_collection(cleanup))["shop:cleanup"].problem
    assert reason in problem.reason


def test_a_window_longer_than_the_calendar_is_cut(folder, make_collection):
    @job(schedule="0 0 * * * *", catchup_window="500000w")
    def cleanup(): ...

    plan = folder.plans(make_collection(cleanup))["shop:cleanup"]
    assert plan.catchup_window == timedelta(days=36_500)


def test_a_job_has_no_timeout_unless_somebody_gives_it_one(folder, make_collection):
    @job
    def plain(): ...

    @job(timeout=timedelta(minutes=5))
    def cleanup(): ...

    collection = make_collection(plain, cleanup)
    assert folder.plans(collection)["shop:plain"].timeout is None
    assert folder.plans(collection)["shop:cleanup"].timeout == timedelta(minutes=5)
    folder.write(
        config=entries("{extension: shop, job: plain, timeout: 90}"),
        profile=entries("{extension: shop, job: cleanup, timeout: none}"),
    )
    plans = folder.plans(collection)
    assert plans["shop:plain"].timeout == timedelta(seconds=90)
    assert plans["shop:cleanup"].timeout is None
    assert [source.value for source in plans["shop:cleanup"].sources["timeout"]] == [
        "5m",
        "none",
    ]


def test_what_the_code_says_is_told_as_a_file_would_say_it(folder, make_collection):
    @job(timeout=timedelta(minutes=90), retry_on=[OSError])
    def paint(
        *,
        age: timedelta = timedelta(days=30),
        folder: PurePath = INBOX,
        colour: Colour = Colour.RED,
        tags: tuple[str, ...] = ("a",),
    ): ...

    sources = folder.plans(make_collection(paint))["shop:paint"].sources
    names = (
        "timeout",
        "retry_on",
        *(f"parameters.{n}" for n in ("age", "folder", "colour", "tags")),
    )
    said = [(sources[name][0].value, sources[name][0].text(name)) for name in names]
    assert said == [
        ("1h30m", "1h30m"),
        (["OSError"], '["OSError"]'),
        ("30d", "30d"),
        ("inbox", "inbox"),
        ("red", "red"),
        (["a"], '["a"]'),
    ]


@pytest.mark.parametrize(
    ("timeout", "reason"), [("soon", "'soon' is no duration"), ("0s", "must be longer than 0s")]
)
def test_a_wrong_timeout_degrades_the_job_or_is_the_operators_mistake(
    folder, make_collection, timeout, reason
):
    @job(timeout=timeout)
    def cleanup(): ...

    problem = folder.plans(make_collection(cleanup))["shop:cleanup"].problem
    assert reason in problem.reason
    folder.write(config=entries(f"{{extension: shop, job: cleanup, timeout: {timeout}}}"))
    with pytest.raises(ConfigurationError, match=reason):
        folder.plans(make_collection(cleanup))


def test_retries_and_limits_are_layered_value_by_value(folder, make_collection):
    @job(max_attempts=3, retry_delay="1m", retry_on=OSError, concurrency={"key": "a", "limit": 1})
    def cleanup(): ...

    collection = make_collection(cleanup)
    plan = folder.plans(collection)["shop:cleanup"]
    assert plan.retry == RetryPolicy(3, timedelta(minutes=1), retry_on=("OSError",))
    assert plan.concurrency == Concurrency("a", 1)
    folder.write(
        config=entries(
            "{extension: shop, job: cleanup, retry_delay: 5s, retry_factor: 1.5,"
            " retry_max_delay: 1m, retry_past_next_tick: yes, retry_on: [a.B, KeyError],"
            " give_up_on: ValueError, concurrency: {key: b, limit: 2}}"
        ),
        profile=entries("{extension: shop, job: cleanup, max_attempts: 5}"),
    )
    plan = folder.plans(collection)["shop:cleanup"]
    assert plan.retry == RetryPolicy(
        max_attempts=5,
        delay=timedelta(seconds=5),
        factor=1.5,
        max_delay=timedelta(minutes=1),
        past_next_tick=True,
        retry_on=("a.B", "KeyError"),
        give_up_on=("ValueError",),
    )
    assert plan.concurrency == Concurrency("b", 2)
    assert [s.layer for s in plan.sources["max_attempts"]] == ["job", "profile.yaml"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"max_attempts": 0}, "max_attempts: is 0, must be at least 1"),
        ({"retry_delay": "soon"}, "retry_delay: 'soon' is no duration"),
        ({"retry_on": "ValeuError"}, 'retry_on: "ValeuError" is no built-in exception type'),
        ({"concurrency": {"key": "a"}}, 'concurrency: is {"key": "a"}: write {key: api'),
    ],
)
def test_a_wrong_policy_of_the_author_degrades_the_job(folder, make_collection, arguments, reason):
    collection = make_collection(job(name="cleanup", **arguments)(lambda: None))
    assert folder.plans(collection)["shop:cleanup"].problem.reason.startswith(reason)
