"""Where plugins come from, and what is known of each."""

from __future__ import annotations

import pytest

from systemprompt_jobs.errors import UsageError
from systemprompt_jobs.model import Extension

from .conftest import GOOD


def ids(collection):
    return [collected.id for collected in collection.jobs]


def names(collection):
    return [extension.name for extension in collection.extensions]


class TestInstalled:
    def test_a_job_knows_extension_distribution_and_version(self, site):
        site.install("backup", GOOD, distribution="company-backup", version="2.3.1")
        (collected,) = site.collect().jobs
        assert collected.id == "backup:works"
        assert collected.extension == Extension(
            name="backup",
            module="module_of_backup",
            distribution="company-backup",
            version="2.3.1",
            source="installed",
        )

    def test_they_come_in_the_order_of_their_names(self, site):
        for name in ("b", "c", "a"):
            site.install(name, GOOD)
        assert ids(site.collect()) == ["a:works", "b:works", "c:works"]

    def test_one_distribution_may_bring_several(self, site):
        site.install("one", GOOD, distribution="both")
        site.write("module_of_two.py", GOOD)
        points = site.folder / "both-1.0.dist-info" / "entry_points.txt"
        points.write_text("[systemprompt_jobs]\none = module_of_one\ntwo = module_of_two\n")
        assert ids(site.collect(allowed="both")) == ["one:works", "two:works"]

    def test_a_half_uninstalled_distribution_has_no_version(self, site):
        site.install("half", GOOD)
        (site.folder / "dist_of_half-1.0.dist-info" / "METADATA").unlink()
        (extension,) = site.collect().extensions
        assert (extension.distribution, extension.version) == ("", "")

    def test_the_module_is_loaded_into_the_manager_under_the_extensions_name(self, site, good):
        site.collect()
        assert site.manager.get_plugin("good").__name__ == "module_of_good"


class TestWhatAModuleBrings:
    def test_jobs_in_the_order_in_which_they_are_written(self, site):
        source = GOOD + "\n    @job\n    def another(): ...\n\n    @job\n    def last(): ...\n"
        site.install("many", source)
        assert ids(site.collect()) == ["many:works", "many:another", "many:last"]

    def test_imported_jobs_are_not_its_own(self, site, good):
        site.install("borrower", "from module_of_good import works\n")
        collection = site.collect()
        assert ids(collection) == [good]
        assert not collection.degraded

    def test_a_package_owns_what_it_imports_from_its_submodules(self, site):
        site.write("package_a/work.py", GOOD)
        site.install(
            "a", "from .work import works\n", file="package_a/__init__.py", entry="package_a"
        )
        assert ids(site.collect()) == ["a:works"]

    def test_its_jobs_hook_is_honoured_instead(self, site):
        source = """
            from systemprompt_jobs import hookimpl, job

            @job
            def named(): ...

            @job
            def unnamed(): ...

            @hookimpl
            def jobs():
                yield named
        """
        site.install("hooked", source)
        assert ids(site.collect()) == ["hooked:named"]

    def test_a_jobs_hook_may_hand_out_imported_jobs(self, site, good):
        source = """
            import module_of_good
            from systemprompt_jobs import hookimpl

            @hookimpl(specname="jobs")
            def all_of_them():
                return (module_of_good.works,)
        """
        site.install("lender", source)
        assert ids(site.collect()) == [good, "lender:works"]

    def test_a_job_named_twice_in_one_answer_is_one(self, site):
        source = GOOD + (
            "\n    from systemprompt_jobs import hookimpl\n"
            "\n    @hookimpl\n    def jobs():\n        return [works, works]\n"
        )
        site.install("twice", source)
        collection = site.collect()
        assert ids(collection) == ["twice:works"]
        assert not collection.degraded

    def test_hooks_alone_are_a_plugin(self, site):
        source = """
            from systemprompt_jobs import hookimpl

            @hookimpl
            def run_failed(run): ...
        """
        site.install("hooks", source)
        assert not site.collect().degraded
        assert len(site.manager.hook.run_failed.get_hookimpls()) == 1

    @pytest.mark.parametrize("entry", ["module_of_cls:Extension", "module_of_cls:extension"])
    def test_an_extension_class_or_its_instance(self, site, entry):
        source = GOOD + (
            "\n    from systemprompt_jobs import JobExtension\n"
            "\n    class Extension(JobExtension):\n"
            "        def jobs(self):\n            return [works]\n"
            "\n    extension = Extension()\n"
        )
        site.install("cls", source, entry=entry)
        assert ids(site.collect()) == ["cls:works"]

    def test_attributes_of_a_module_are_not_woken(self, site):
        source = GOOD + (
            "\n    class Lazy:\n"
            "        def __getattr__(self, name):\n"
            "            raise RuntimeError(name)\n"
            "\n    lazy = Lazy()\n"
        )
        site.install("lazy", source)
        assert not site.collect().degraded


class TestLocal:
    def test_a_file_is_an_extension_of_its_name(self, site):
        file = site.write("project/nightly.py", GOOD)
        collection = site.collect(files=[file])
        assert ids(collection) == ["nightly:works"]
        assert collection.extensions == (Extension("nightly", str(file), source="local"),)

    def test_a_package_folder_too(self, site):
        site.write("project/nightly/work.py", GOOD)
        site.write("project/nightly/__init__.py", "from .work import works\n")
        assert ids(site.collect(files=[site.folder / "project/nightly"])) == ["nightly:works"]

    def test_two_projects_in_one_process_keep_their_own_submodules(self, site):
        for project in ("one", "two"):
            site.write(f"{project}/app/work.py", GOOD.replace("works", f"works_in_{project}"))
            site.write(f"{project}/app/__init__.py", "from .work import *\n")
        first = site.collect(files=[site.folder / "one/app"])
        site.manager.unregister(name="app")
        second = site.collect(files=[site.folder / "two/app"])
        assert ids(first) == ["app:works_in_one"]
        assert ids(second) == ["app:works_in_two"]

    def test_it_loads_whatever_the_environment_limits(self, site, good):
        file = site.write("project/nightly.py", GOOD)
        assert ids(site.collect(files=[file], allowed="")) == ["nightly:works"]

    def test_upper_case_becomes_lower(self, site):
        file = site.write("project/Nightly.py", GOOD)
        assert ids(site.collect(files=[file])) == ["nightly:works"]


class TestCommandLine:
    def test_a_plugin_by_its_entry_points_name_although_it_does_not_load_by_itself(
        self, site, good
    ):
        collection = site.collect(modules=["good"], allowed="")
        assert ids(collection) == [good]
        assert collection.extensions[0].distribution == "dist-of-good"

    def test_an_installed_plugin_by_its_module_stays_what_it_is(self, site, good):
        assert ids(site.collect(modules=["module_of_good"], allowed="")) == [good]

    def test_a_module_that_nothing_declares_is_an_extension_of_its_last_name(self, site):
        site.write("package_b/Extra.py", GOOD)
        site.write("package_b/__init__.py", "")
        collection = site.collect(modules=["package_b.Extra"])
        assert ids(collection) == ["extra:works"]
        assert collection.extensions == (
            Extension("extra", "package_b.Extra", source="command line"),
        )

    def test_twice_the_same_is_once(self, site, good):
        site.write("module_of_extra.py", GOOD)
        collection = site.collect(modules=["good", "good", "module_of_extra", "module_of_extra"])
        assert ids(collection) == [good, "module_of_extra:works"]

    @pytest.mark.parametrize("name", ["nowhere", "nowhere.at.all", "no name", "", "os.nowhere"])
    def test_one_that_does_not_exist_is_wrong_usage(self, site, name):
        with pytest.raises(UsageError, match="no plugin or module has this name"):
            site.collect(modules=[name])

    def test_a_near_name_is_suggested(self, site, good):
        with pytest.raises(UsageError, match="did you mean 'good'"):
            site.collect(modules=["godo"])

    def test_a_module_in_a_broken_package_is_degraded_not_unknown(self, site, good):
        init = site.write("package_c/__init__.py", "import no_such_library\n")
        problem = site.problem("work", modules=["package_c.work"])
        assert "no_such_library" in problem.reason
        assert (problem.place.file, problem.place.line) == (init, 1)

    def test_a_plugin_may_be_given_as_an_object(self, site):
        from systemprompt_jobs import JobExtension

        class Inline(JobExtension): ...

        assert names(site.collect(modules=[Inline()])) == ["inline"]


class TestBlocking:
    def test_no_plugin_keeps_one_out_and_says_so(self, site, good):
        site.install("other", GOOD)
        collection = site.collect(blocked=["other"])
        assert ids(collection) == [good]
        assert "other" in collection.blocked
        assert "other" not in names(collection)

    def test_a_blocked_plugin_is_not_imported(self, site, good):
        site.install("bad", "raise SystemExit")
        assert not site.collect(blocked=["bad"]).degraded

    def test_it_wins_over_plugin(self, site):
        site.write("module_of_extra.py", GOOD)
        collection = site.collect(modules=["module_of_extra"], blocked=["module_of_extra"])
        assert ids(collection) == []
        assert "module_of_extra" in collection.blocked

    def test_local_plugins_can_be_blocked(self, site):
        file = site.write("project/nightly.py", GOOD)
        assert ids(site.collect(files=[file], blocked=["nightly"])) == []


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def two(self, site):
        site.install("one", GOOD)
        site.install("two", GOOD, distribution="company-two")

    def test_unset_loads_everything_installed(self, site):
        assert {"one", "two"} <= set(names(site.collect(allowed=None)))

    @pytest.mark.parametrize("empty", ["", " ", ","])
    def test_empty_loads_nothing_and_tells_what_it_kept_out(self, site, empty):
        collection = site.collect(allowed=empty)
        assert ids(collection) == []
        assert {"one", "two"} <= set(collection.blocked)
        assert not collection.degraded

    @pytest.mark.parametrize(
        ("allowed", "loaded"),
        [
            ("one", ["one"]),
            ("two,one", ["one", "two"]),
            (" one , two ", ["one", "two"]),
            ("one two", ["one", "two"]),
            ("company-two", ["two"]),
        ],
    )
    def test_names_of_extensions_or_distributions_limit_it(self, site, allowed, loaded):
        assert names(site.collect(allowed=allowed)) == loaded

    def test_a_typing_error_is_degraded_with_the_near_name(self, site):
        collection = site.collect(allowed="one,company-tow")
        assert ids(collection) == ["one:works"]
        problem = collection.degraded["company-tow"]
        assert problem.reason == "SYSTEMPROMPT_PLUGINS names a plugin that is not installed"
        assert problem.remedy == "did you mean 'company-two'?"

    def test_a_typing_error_in_what_is_kept_out_is_degraded_too(self, site):
        collection = site.collect(blocked=["tow", "one"])
        assert ids(collection) == ["two:works"]
        (problem,) = collection.degraded.values()
        assert str(problem) == (
            "tow: --no-plugin names a plugin that is not installed (did you mean 'two'?)"
        )
