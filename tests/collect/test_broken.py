"""One broken plugin is degraded with its reason, file and line; the others work."""

from __future__ import annotations

from pathlib import Path

import pytest

import systemprompt_jobs
from systemprompt_jobs._collect._load import _MACHINERY

from .conftest import GOOD, line_of

HEAD = "from systemprompt_jobs import JobExtension, hookimpl, job\n"

PLUGINS = {
    # what is wrong: (source, part of the line it is placed at, parts of reason and remedy)
    "import error": (
        "import no_such_library  # here",
        ["ModuleNotFoundError: No module named 'no_such_library'"],
    ),
    "exception at import": ("1 / 0  # here", ["ZeroDivisionError: division by zero"]),
    "syntax error": ("def work(:  # here", ["SyntaxError: invalid syntax"]),
    "sys.exit at import": ("import sys\nsys.exit(3)  # here", ["it called sys.exit(3)"]),
    "memory error": ("raise MemoryError  # here", ["MemoryError"]),
    "an error without a text": (
        "class Odd(Exception):\n    def __str__(self): raise RuntimeError\nraise Odd  # here",
        ["Odd: <exception str() failed>"],
    ),
    "wrong argument of @job": (
        "@job(schedule=5)  # here\ndef work(): ...",
        ["TypeError: @job(schedule=…) takes str or Schedule, got 5"],
    ),
    "a library that fails for it": (
        "import json\njson.loads('{')  # here",
        ["JSONDecodeError: Expecting property name"],
    ),
    "jobs() raises": (
        "@hookimpl\ndef jobs():\n    raise LookupError('no file')  # here",
        ["LookupError: no file"],
    ),
    "jobs() yields, then raises": (
        "@hookimpl\ndef jobs():\n    yield from 5  # here",
        ["TypeError: 'int' object is not iterable"],
    ),
    "jobs() exits": (
        "@hookimpl\ndef jobs():\n    raise SystemExit('bye')  # here",
        ["it called sys.exit('bye')"],
    ),
    "jobs() returns None": (
        "@hookimpl  # here\ndef jobs(): ...",
        ["jobs() returned None", "return a list of @job functions"],
    ),
    "jobs() returns one job": (
        "@job\ndef work(): ...\n@hookimpl  # here\ndef jobs(): return work",
        ["jobs() returned <Job 'work'", "return a list of @job functions"],
    ),
    "jobs() returns something else": (
        "def work(): ...\n@hookimpl  # here\ndef jobs(): return [work]",
        ["jobs() returned <function work", "which is no job"],
    ),
    "misspelt hook": (
        "@hookimpl  # here\ndef run_faild(run): ...",
        ["there is no hook 'run_faild'", "did you mean 'run_failed'?"],
    ),
    "unknown hook": (
        "@hookimpl  # here\ndef zzz(): ...",
        ["there is no hook 'zzz'", "docs/reference/hooks.md lists all"],
    ),
    "misspelt specname": (
        "@hookimpl(specname='run_faild')  # here\ndef mine(run): ...",
        ["there is no hook 'run_faild'"],
    ),
    "wrong hook argument": (
        "@hookimpl  # here\ndef run_failed(run, reprot, x): ...",
        ["the hook 'run_failed' has no argument 'reprot', 'x'", "it takes run, report"],
    ),
    "hook without a marker": (
        "def run_failed(run): ...  # here",
        ["run_failed() bears a hook's name and is not marked", "put @hookimpl above it"],
    ),
    "jobs() without a marker": (
        "def jobs(): return []  # here",
        ["jobs() bears a hook's name and is not marked"],
    ),
    "wrapper on an observer": (
        "@hookimpl(wrapper=True)  # here\ndef run_failed(run): yield",
        ["'run_failed' is called for each plugin alone and takes no wrapper"],
    ),
    "old wrapper on jobs()": (
        "@hookimpl(hookwrapper=True)  # here\ndef jobs(): yield",
        ["'jobs' is called for each plugin alone and takes no wrapper"],
    ),
    "async hook": (
        "@hookimpl  # here\nasync def run_failed(run): ...",
        ["run_failed() is async", "drop the `async`"],
    ),
}


@pytest.mark.parametrize(("source", "said"), PLUGINS.values(), ids=PLUGINS)
class TestAPlugin:
    def test_is_degraded_with_reason_file_and_line(self, site, source, said):
        path = site.install("bad", HEAD + source)
        problem = site.problem("bad")
        for part in said:
            assert part in f"{problem.reason} {problem.remedy}"
        assert problem.place == line_of(path, "# here")

    def test_leaves_nothing_behind_and_the_others_work(self, site, good, source, said):
        site.install("bad", HEAD + source)
        site.install("zealous", GOOD)
        collection = site.collect()
        assert [c.id for c in collection.jobs] == [good, "zealous:works"]
        assert "bad" in {extension.name for extension in collection.extensions}
        assert {name for name, _ in site.manager.list_name_plugin()} == {"good", "zealous"}


JOBS = {
    "an upper-case name": ("@job(name='Work')", ["the name 'Work' cannot be used", "lower-case"]),
    "an empty name": ("@job(name='')", ["the name '' cannot be used"]),
    "a name with a colon": ("@job(name='a:b')", ["the name 'a:b' cannot be used"]),
    "digits of another script": ("@job(name='٣')", ["the name '٣' cannot be used"]),
    "a trailing line break": ("@job(name='work\\n')", [r"the name 'work\n' cannot be used"]),
    "a bad alias": ("@job(aliases='Old Name')", ["the name 'Old Name' cannot be used"]),
    "parameters that no file can hold": (
        "@job(parameters={'a': object()})",
        ["its parameters= cannot be stored", "use text, numbers, lists and mappings"],
    ),
    "parameters that hold themselves": (
        "loop = []\nloop.append(loop)\n@job(parameters={'a': loop})",
        ["its parameters= cannot be stored"],
    ),
}


@pytest.mark.parametrize(("decorator", "said"), JOBS.values(), ids=JOBS)
def test_a_bad_job_is_degraded_and_its_neighbours_work(site, good, decorator, said):
    source = f"{HEAD}@job\ndef fine(): ...\n{decorator}  # here\ndef work(*, a=0): ...\n"
    path = site.install("mixed", source)
    collection = site.collect()
    ((culprit, problem),) = collection.degraded.items()
    assert culprit == problem.culprit
    assert culprit.startswith("mixed:")
    for part in said:
        assert part in f"{problem.reason} {problem.remedy}"
    assert problem.place == line_of(path, "# here")
    assert {good, "mixed:fine", culprit} == {c.id for c in collection.jobs}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("def work(ctx, other): ...", "other"),
        ("def work(*args): ...", r"\*args"),
        ("def work(**kwargs): ...", r"\*\*kwargs"),
        ("def work(*, a: 'NoSuchType'): ...", "NoSuchType"),
        ("def work(): yield", "it yields, so calling it runs nothing"),
        ("async def work(): yield", "it yields, so calling it runs nothing"),
    ],
)
def test_a_function_that_no_run_could_call_is_degraded(site, good, function, reason):
    path = site.install("bad", f"{HEAD}@job  # here\n{function}\n")
    problem = site.problem("bad:work")
    assert problem.place == line_of(path, "# here")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(problem.reason)


def test_a_lambda_needs_a_name(site):
    site.install(
        "terse", f"{HEAD}anonymous = job(lambda: None)\nnamed = job(name='fine')(lambda: None)\n"
    )
    collection = site.collect()
    assert list(collection.degraded) == ["terse:<lambda>"]


class TestNames:
    def test_one_name_for_two_jobs_degrades_both(self, site, good):
        source = HEAD + "@job\ndef work(): ...\n@job(name='work')\ndef other(): ...\n"
        site.install("twins", source)
        problem = site.problem("twins:work")
        assert problem.reason == "the name 'work' is taken by 2 jobs of this extension"
        assert problem.remedy == "rename all but one: @job(name=…)"
        assert problem.place.line == 2

    def test_an_alias_that_is_anothers_name_degrades_both(self, site, good):
        source = HEAD + "@job\ndef work(): ...\n@job(aliases='work')\ndef other(): ...\n"
        site.install("twins", source)
        degraded = site.collect().degraded
        assert list(degraded) == ["twins:work", "twins:other"]
        assert [problem.place.line for problem in degraded.values()] == [2, 4]

    def test_one_alias_for_two_jobs_degrades_both(self, site):
        source = HEAD + "@job(aliases='old')\ndef a(): ...\n@job(aliases='old')\ndef b(): ...\n"
        site.install("twins", source)
        assert list(site.collect().degraded) == ["twins:a", "twins:b"]

    def test_its_own_name_as_an_alias_does_no_harm(self, site):
        site.install("echo", HEAD + "@job(aliases=['work', 'work'])\ndef work(): ...\n")
        assert not site.collect().degraded

    def test_jobs_of_two_extensions_may_share_a_name(self, site, good):
        site.install("other", GOOD)
        assert not site.collect().degraded

    def test_one_extension_name_in_two_distributions_degrades_both(self, site, good):
        site.install("same", GOOD, distribution="first")
        site.install("same", GOOD, distribution="second")
        collection = site.collect()
        assert [c.id for c in collection.jobs] == [good]
        problem = collection.degraded["same"]
        assert problem.reason == "the name is taken by several plugins: first, second"
        owners = {e.distribution for e in collection.extensions if e.name == "same"}
        assert owners == {"first", "second"}

    def test_a_local_file_cannot_take_an_installed_name(self, site, good):
        file = site.write("project/good.py", GOOD)
        collection = site.collect(files=[file])
        assert not collection.jobs
        assert "dist-of-good" in collection.degraded["good"].reason
        assert str(file) in collection.degraded["good"].reason

    @pytest.mark.parametrize("name", ["Upper", "with.dot", "-dash"])
    def test_an_extension_name_has_a_form(self, site, good, name):
        site.install(name, GOOD, file="module_of_odd.py", entry="module_of_odd")
        problem = site.problem(name)
        assert problem.reason == "the name cannot be used"
        assert "lower-case letters" in problem.remedy

    def test_one_module_under_two_names_is_loaded_once(self, site, good):
        site.install("late", "", entry="module_of_good")
        assert site.problem("late").reason == "it is the same plugin as 'good'"


class TestEntryPoints:
    @pytest.mark.parametrize("value", ["limit = 5", "def limit(): ...", "limit = None"])
    def test_one_that_is_no_plugin_is_degraded(self, site, good, value):
        site.install("odd", value, entry="module_of_odd:limit")
        problem = site.problem("odd")
        assert problem.reason.startswith("the entry point module_of_odd:limit is ")
        assert "JobExtension class" in problem.remedy

    def test_one_that_leads_nowhere_is_degraded(self, site, good):
        site.install("odd", "", entry="module_of_odd:missing")
        assert "has no attribute 'missing'" in site.problem("odd").reason

    def test_one_to_a_job_is_degraded(self, site, good):
        site.install("odd", GOOD, entry="module_of_odd:works")
        assert "is <Job 'works'" in site.problem("odd").reason

    def test_a_class_that_cannot_be_made_is_degraded_at_its_line(self, site, good):
        source = HEAD + "class E(JobExtension):\n    def __init__(self):\n        1 / 0  # here\n"
        path = site.install("odd", source, entry="module_of_odd:E")
        assert site.problem("odd").place == line_of(path, "# here")

    def test_an_object_that_pluggy_cannot_keep_is_degraded(self, site, good):
        source = HEAD + "class E(JobExtension):\n    __hash__ = None\n"
        site.install("a", source, entry="module_of_a:E")
        assert "eq=False" in site.problem("a").remedy

    def test_jobs_in_an_unseen_submodule_are_not_lost_in_silence(self, site, good):
        site.write("package_d/jobs.py", GOOD)
        init = site.install(
            "d", "from . import jobs\n", file="package_d/__init__.py", entry="package_d"
        )
        problem = site.problem("d")
        assert "its submodule package_d.jobs is not searched" in problem.reason
        assert problem.remedy.endswith("point the entry point at package_d.jobs")
        assert problem.place.file == init


class TestPlaces:
    def test_a_package_is_blamed_in_the_submodule_that_fails(self, site):
        path = site.write("package_e/work.py", "x = 1\n1 / 0  # here\n")
        init = "from . import work\n"
        site.install("e", init, file="package_e/__init__.py", entry="package_e")
        assert site.problem("e").place == line_of(path, "# here")

    def test_a_neighbour_that_is_named_after_us_is_not_taken_for_us(self):
        ours = Path(systemprompt_jobs.__file__).parent
        assert str(ours / "any.py").startswith(_MACHINERY)
        assert not f"{ours}_of_a_stranger.py".startswith(_MACHINERY)

    def test_a_local_file_is_blamed_by_its_path(self, site):
        file = site.write("project/nightly.py", "x = 1\n1 / 0  # here\n")
        assert site.problem("nightly", files=[file]).place == line_of(file, "# here")

    def test_a_local_file_with_an_unusable_name_is_named(self, site):
        file = site.write("project/my jobs.py", GOOD)
        problem = site.problem("my jobs", files=[file])
        assert problem.place.file == file
        assert "names are" in problem.remedy


def test_what_a_plugin_prints_does_not_spoil_our_output(site, capsys):
    source = GOOD + (
        "    print('at import')\n"
        "    from systemprompt_jobs import hookimpl\n"
        "    @hookimpl\n    def jobs():\n        print('in jobs()')\n        return [works]\n"
    )
    site.install("chatty", source)
    assert [c.id for c in site.collect().jobs] == ["chatty:works"]
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "at import\nin jobs()\n"


def test_control_c_while_loading_stops_us(site):
    site.install("slow", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        site.collect()


def test_an_optional_hook_of_a_later_version_is_let_through(site):
    site.install("modern", HEAD + "@hookimpl(optionalhook=True)\ndef run_teleported(run): ...\n")
    assert not site.collect().degraded
