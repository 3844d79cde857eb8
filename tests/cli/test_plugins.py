from __future__ import annotations


def by_name(answer):
    return {plugin["name"]: plugin for plugin in answer.json["plugins"]}


def test_json_has_the_documented_shape(jobs, project):
    assert jobs("plugins", "--json").json["plugins"][0] == {
        "name": "jobs",
        "distribution": "",
        "version": "",
        "source": "local",
        "module": str(project / "jobs.py"),
        "degraded_jobs": 0,
        "jobs": 3,
        "state": "ok",
        "reason": "",
    }


def test_a_broken_plugin_is_degraded_with_reason_and_place(cli, new_project):
    root = new_project("import no_such_module")
    answer = cli("--root", root, "infra", "jobs", "plugins")
    assert answer.code == 0
    assert "degraded" in answer.out
    assert "jobs: ModuleNotFoundError: No module named 'no_such_module'" in answer.out
    assert f"at {root}/jobs.py:1" in answer.out


def test_a_plugin_with_a_broken_job_is_degraded(cli, degraded_project):
    plugin = by_name(cli("--root", degraded_project, "infra", "jobs", "plugins", "--json"))["jobs"]
    assert (plugin["state"], plugin["jobs"]) == ("degraded", 4)
    assert "jobs:broken" in plugin["reason"]


def test_no_plugin_blocks_one(jobs, cli, project):
    answer = cli("--root", project, "--no-plugin", "jobs", "infra", "jobs", "plugins", "--json")
    assert by_name(answer)["jobs"]["state"] == "blocked"
    listed = cli("--root", project, "--no-plugin", "jobs", "infra", "jobs", "check", "--json")
    assert listed.json["jobs"] == 0


def test_plugin_loads_a_module(cli, tmp_path, monkeypatch):
    (tmp_path / "extra_module.py").write_text(
        "from systemprompt_jobs import job\n@job\ndef more(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    answer = cli("--plugin", "extra_module", "infra", "jobs", "plugins", "--json")
    assert by_name(answer)["extra_module"]["source"] == "command line"
    assert by_name(answer)["extra_module"]["jobs"] == 1


def test_a_plugin_that_does_not_exist_is_wrong_use(cli):
    answer = cli("--plugin", "nowhere", "infra", "jobs", "plugins")
    assert answer.code == 2
    assert answer.err.startswith("error: --plugin nowhere: ")


def test_a_name_that_nothing_bears_is_degraded(jobs, monkeypatch):
    monkeypatch.setenv("SYSTEMPROMPT_PLUGINS", "nowhere")
    assert by_name(jobs("plugins", "--json"))["nowhere"]["state"] == "degraded"


def test_no_plugins_at_all_says_how_to_get_one(cli, monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    assert cli("infra", "jobs", "plugins").out.startswith("no plugins yet: pip install one")
