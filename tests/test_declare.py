"""`@job`, `JobExtension` and `JobResult`: what an author writes."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import inspect
import multiprocessing
import pickle
import sys

import pluggy
import pytest

from systemprompt_jobs import Job, JobExtension, JobResult, every, hookimpl, hookspecs, job
from systemprompt_jobs.errors import ScheduleError
from systemprompt_jobs.model import Overlap


@job(schedule="0 0 2 * * *", tags=["nightly", "db"], parameters={"older_than": "30d"})
def cleanup(ctx: object = None, *, older_than: str = "1d") -> str:
    """Delete old rows.

    Second paragraph.
    """
    return f"{ctx}:{older_than}"


@job
def bare() -> None: ...


@job
async def download() -> str:
    return "done"


def returns_its_argument(value: object) -> object:
    return value


class TestAJobIsItsFunction:
    def test_called_with_the_same_arguments(self):
        assert cleanup("c", older_than="9d") == "c:9d"

    def test_it_bears_the_functions_name_doc_and_module(self):
        assert cleanup.__name__ == "cleanup"
        assert cleanup.__qualname__ == "cleanup"
        assert cleanup.__doc__ == cleanup.function.__doc__
        assert cleanup.__module__ == __name__

    def test_it_leads_to_the_function(self):
        assert cleanup.__wrapped__ is cleanup.function
        assert inspect.unwrap(cleanup) is cleanup.function

    def test_its_signature_is_the_functions(self):
        assert inspect.signature(cleanup) == inspect.signature(cleanup.function)

    def test_its_exceptions_pass_through(self):
        @job
        def fails() -> None:
            raise KeyError("x")

        with pytest.raises(KeyError, match="x"):
            fails()

    def test_its_repr_names_it_and_its_place(self):
        line = inspect.getsourcelines(bare.function)[1]
        assert repr(bare) == f"<Job 'bare' from {__file__}:{line}>"


class TestCoroutines:
    def test_an_async_function_stays_one(self):
        assert download.is_async
        assert asyncio.run(download()) == "done"

    @pytest.mark.parametrize("value", [cleanup, bare])
    def test_a_plain_one_is_not_taken_for_one(self, value):
        assert not value.is_async
        assert not inspect.iscoroutinefunction(value)

    @pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio's own check is deprecated")
    def test_asyncio_knows_it(self):
        assert asyncio.iscoroutinefunction(download)
        assert not asyncio.iscoroutinefunction(bare)

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect has no mark before 3.12")
    def test_inspect_knows_it(self):
        assert inspect.iscoroutinefunction(download)


class TestFrozen:
    @pytest.mark.parametrize("attribute", ["name", "schedule", "function", "__wrapped__", "new"])
    def test_nothing_can_be_set(self, attribute):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(cleanup, attribute, "changed")

    def test_parameters_cannot_change(self):
        with pytest.raises(TypeError):
            cleanup.parameters["older_than"] = "1s"

    def test_parameters_are_copied(self):
        parameters = {"older_than": "30d"}
        made = job(parameters=parameters)(cleanup.function)
        parameters["older_than"] = "1s"
        assert made.parameters == {"older_than": "30d"}

    def test_it_is_hashed_and_compared_by_identity(self):
        twin = job(schedule="0 0 2 * * *")(cleanup.function)
        assert len({cleanup, twin, cleanup}) == 2
        assert cleanup != twin


class TestPickling:
    @pytest.mark.parametrize("value", [cleanup, bare, download])
    def test_it_comes_back_as_itself(self, value):
        assert pickle.loads(pickle.dumps(value)) is value

    def test_it_is_pickled_by_reference(self):
        assert len(pickle.dumps(cleanup)) < 150

    def test_copies_are_itself(self):
        assert copy.copy(cleanup) is cleanup
        assert copy.deepcopy(cleanup) is cleanup

    def test_one_that_its_module_does_not_hold_is_refused(self):
        hidden = job(cleanup.function)
        with pytest.raises(pickle.PicklingError, match="cleanup"):
            pickle.dumps(hidden)

    def test_it_travels_to_a_spawned_process(self, tmp_path, monkeypatch):
        (tmp_path / "travelling.py").write_text(
            "from systemprompt_jobs import job\n\n"
            "@job\ndef doubles(ctx, *, n: int) -> int:\n    return 2 * n\n\n"
            "def call(job, n):\n    assert job is doubles\n    return job(None, n=n)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        import travelling

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(travelling.call, (travelling.doubles, 21)) == 42


class TestDefaults:
    def test_bare_and_called_without_arguments_are_the_same(self):
        values = [
            {f.name: getattr(made, f.name) for f in dataclasses.fields(Job)}
            for made in (job(bare.function), job()(bare.function))
        ]
        assert values[0] == values[1]

    def test_everything_has_one(self):
        assert bare.name == "bare"
        assert bare.description == ""
        assert bare.schedule == ""
        assert bare.run_on_startup is False
        assert bare.tags == ()
        assert bare.timezone is None
        assert bare.enabled is True
        assert bare.parameters == {}
        assert bare.aliases == ()
        assert bare.overlap is Overlap.SKIP

    def test_the_description_is_the_first_line_of_the_docstring(self):
        assert cleanup.description == "Delete old rows."

    @pytest.mark.parametrize(
        ("doc", "description"),
        [("\n    On the next line.\n    ", "On the next line."), ("  \n ", ""), (None, "")],
    )
    def test_a_docstring_may_begin_anywhere(self, doc, description):
        def function(): ...

        function.__doc__ = doc
        assert job(function).description == description

    def test_every_argument_arrives(self):
        interval = every(minutes=5)
        made = job(
            schedule=interval,
            name="other",
            description="What it is.",
            run_on_startup=True,
            tags=("a",),
            timezone="Europe/Berlin",
            enabled=False,
            parameters={"n": 1},
            aliases=["former"],
            overlap="allow",
        )(bare.function)
        assert made.schedule is interval
        assert (made.name, made.description) == ("other", "What it is.")
        assert (made.run_on_startup, made.enabled) == (True, False)
        assert (made.tags, made.aliases) == (("a",), ("former",))
        assert made.timezone == "Europe/Berlin"
        assert made.parameters == {"n": 1}
        assert made.overlap is Overlap.ALLOW

    def test_a_tag_or_an_alias_may_be_one_text(self):
        made = job(tags="nightly", aliases="former")(bare.function)
        assert made.tags == ("nightly",)
        assert made.aliases == ("former",)

    def test_tags_may_be_any_iterable(self):
        assert job(tags=(t for t in "ab"))(bare.function).tags == ("a", "b")

    def test_exceptions_are_known_by_their_names(self):
        made = job(retry_on=OSError, give_up_on=[ScheduleError, "httpx.HTTPError"])(bare.function)
        assert made.retry_on == ("OSError",)
        assert made.give_up_on == ("systemprompt_jobs.errors.ScheduleError", "httpx.HTTPError")

    def test_values_are_not_judged_here(self):
        made = job(schedule="every now and then", name="No Name!", timezone="Mars/Olympus")(
            bare.function
        )
        assert made.name == "No Name!"


class TestRefused:
    def test_a_method(self):
        with pytest.raises(TypeError, match=r"method .*Plugin\.work\(\).*module's top level"):

            class Plugin:
                @job
                def work(self): ...

    def test_a_static_method(self):
        with pytest.raises(TypeError, match=r"method .*Plugin\.work"):

            class Plugin:
                @job
                @staticmethod
                def work(): ...

    def test_a_class_method(self):
        with pytest.raises(TypeError, match="plain function, got <classmethod"):

            class Plugin:
                @job
                @classmethod
                def work(cls): ...

    def test_a_bound_method(self):
        with pytest.raises(TypeError, match=r"method dict\.get"):
            job({}.get)

    @pytest.mark.parametrize(
        "value", [dict, functools.partial(returns_its_argument, 1), 5, object(), [bare]]
    )
    def test_what_is_no_function(self, value):
        with pytest.raises(TypeError, match="@job takes a plain function, got"):
            job(value)

    def test_a_schedule_without_its_name(self):
        with pytest.raises(TypeError, match=r"write @job\(schedule='0 0 2 \* \* \*'\)"):
            job("0 0 2 * * *")

    def test_twice(self):
        with pytest.raises(TypeError, match=r"applied twice: <Job 'bare'"):
            job(name="again")(bare)

    def test_an_unknown_argument(self):
        with pytest.raises(TypeError, match="shedule"):
            job(shedule="0 * * * * *")

    @pytest.mark.parametrize(
        ("argument", "value", "kind"),
        [
            ("schedule", 5, "str or Schedule"),
            ("schedule", None, "str or Schedule"),
            ("name", b"name", "str"),
            ("description", 1, "str"),
            ("run_on_startup", "yes", "bool"),
            ("enabled", 1, "bool"),
            ("tags", 5, "Iterable"),
            ("tags", [5], "str"),
            ("aliases", [None], "str"),
            ("timezone", 1, "str"),
            ("parameters", [("a", 1)], "Mapping"),
            ("overlap", True, "str"),
            ("overlap", "wait", "'skip' or 'queue' or 'allow'"),
            ("catch_up", "some", "'latest' or 'none' or 'all'"),
            ("catchup_window", 3600, "str or timedelta"),
            ("timeout", None, "str or timedelta"),
            ("max_attempts", "3", "int"),
            ("max_attempts", True, "a number"),
            ("retry_delay", 10, "str or timedelta"),
            ("retry_factor", "2", "int or float"),
            ("retry_past_next_tick", 1, "bool"),
            ("retry_on", 5, "Iterable"),
            ("retry_on", [5], "exception types or names"),
            ("give_up_on", int, "exception types or names"),
            ("concurrency", "api", "Mapping"),
        ],
    )
    def test_an_argument_of_the_wrong_type_is_named_with_its_value(self, argument, value, kind):
        with pytest.raises(TypeError) as caught:
            job(**{argument: value})(bare.function)
        inside = isinstance(value, list) and kind in {"str", "exception types or names"}
        culprit = value[0] if inside else value
        assert str(caught.value) == f"@job({argument}=…) takes {kind}, got {culprit!r}"


class TestFunctionsInside:
    def test_a_nested_function_is_fine(self):
        @job
        def inner() -> int:
            return 1

        assert inner() == 1

    def test_a_decorated_function_is_placed_where_it_is_written(self):
        @functools.wraps(bare.function)
        def wrapper(): ...

        assert job(wrapper).place == bare.place


class TestJobExtension:
    def manager(self, plugin):
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        manager.register(plugin)
        return manager

    def test_methods_with_a_hooks_name_need_no_marker(self):
        class Extension(JobExtension):
            def jobs(self):
                return [bare]

            def run_failed(self, run, report):
                raise AssertionError

            def helper(self): ...

        manager = self.manager(Extension())
        assert manager.hook.jobs() == [[bare]]
        assert len(manager.hook.run_failed.get_hookimpls()) == 1
        assert not hasattr(Extension.helper, hookspecs.MARKER)

    def test_it_brings_no_jobs_unless_told(self):
        class Extension(JobExtension): ...

        assert self.manager(Extension()).hook.jobs() == [()]

    def test_marks_are_kept(self):
        class Extension(JobExtension):
            @hookimpl(trylast=True)
            def jobs(self):
                return [bare]

        assert self.manager(Extension()).hook.jobs.get_hookimpls()[0].trylast

    def test_an_overriding_method_is_a_hook_too(self):
        class Parent(JobExtension):
            def jobs(self):
                return [bare]

        class Child(Parent):
            def jobs(self):
                return [*super().jobs(), cleanup]

        assert self.manager(Child()).hook.jobs() == [[bare, cleanup]]

    def test_inherited_methods_are_hooks_also_from_a_plain_mixin(self):
        class Mixin:
            def run_started(self, run): ...

        class Extension(Mixin, JobExtension):
            def jobs(self):
                return [bare]

        class Child(Extension): ...

        manager = self.manager(Child())
        assert manager.hook.jobs() == [[bare]]
        assert len(manager.hook.run_started.get_hookimpls()) == 1

    def test_static_and_class_methods_are_hooks_too(self):
        class Extension(JobExtension):
            @staticmethod
            def jobs():
                return [bare]

            @classmethod
            def run_started(cls, run): ...

        manager = self.manager(Extension())
        assert manager.hook.jobs() == [[bare]]
        assert len(manager.hook.run_started.get_hookimpls()) == 1


class TestJobResult:
    def test_success(self):
        assert JobResult.success() == JobResult(ok=True, message="", processed=None, failed=None)

    def test_failure_says_why(self):
        assert JobResult.failure("disk full") == JobResult(ok=False, message="disk full")

    def test_a_message_and_counts_make_a_copy(self):
        plain = JobResult.success()
        full = plain.with_message("three rows").with_stats(processed=3, failed=1)
        assert full == JobResult(ok=True, message="three rows", processed=3, failed=1)
        assert plain == JobResult.success()

    def test_any_object_may_be_the_message(self):
        error = ValueError("no luck")
        assert JobResult.failure(error).message == "no luck"
        assert JobResult.success().with_message(5).message == "5"

    def test_it_cannot_change(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            JobResult.success().ok = False
