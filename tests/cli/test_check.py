from __future__ import annotations


def test_all_well_is_exit_0(jobs, project):
    answer = jobs("check")
    assert (answer.code, answer.out) == (0, "1 plugin, 3 jobs, all well\n")
    assert not (project / "var").exists()


def test_json_has_the_documented_shape(jobs):
    assert jobs("check", "--json").json == {
        "ok": True,
        "plugins": 1,
        "jobs": 3,
        "errors": [],
        "degraded": [],
        "warnings": [],
    }


def test_something_degraded_is_exit_1_with_reason_and_place(cli, degraded_project):
    answer = cli("--root", degraded_project, "infra", "jobs", "check")
    assert answer.code == 1
    assert answer.out.startswith("1 plugin, 4 jobs, 1 degraded\n")
    assert "jobs:broken: schedule" in answer.out
    assert f"at {degraded_project}/jobs.py:" in answer.out


def test_a_warning_is_exit_1(jobs, project):
    (project / "profile.yml").touch()
    answer = jobs("check")
    assert answer.code == 1
    assert "1 suspicious" in answer.out
    assert "call it profile.yaml" in answer.out.partition("Suspicious")[2]


def test_mistakes_are_exit_2_all_at_once_with_what_is_degraded(cli, new_project):
    root = new_project(
        "raise RuntimeError('no')",
        "scheduler:\n  local_plugins: [jobs.py]\n  workers: many\n  timezon: UTC\n",
    )
    answer = cli("--root", root, "infra", "jobs", "check", "--json")
    assert answer.code == 2
    assert answer.json["ok"] is False
    assert [(p["culprit"], p["line"]) for p in answer.json["errors"]] == [
        ("scheduler.workers", 3),
        ("scheduler.timezon", 4),
    ]
    assert [p["culprit"] for p in answer.json["degraded"]] == ["jobs"]
    text = cli("--root", root, "infra", "jobs", "check").out
    assert text.startswith("1 plugin, 0 jobs, 2 wrong, 1 degraded\n")
    assert "scheduler.timezon: unknown key" in text
    assert "jobs: RuntimeError: no" in text


def test_other_commands_refuse_mistakes_too(cli, new_project):
    root = new_project(config="scheduler:\n  workers: many\n")
    for command in (["list"], ["status"], ["history", "--job", "x"], ["run", "greet"]):
        answer = cli("--root", root, "infra", "jobs", *command)
        assert answer.code == 2, command
        assert answer.err.startswith(f"error: {root}/services/scheduler/config.yaml:2: ")


SUSPICIOUS = """
scheduler:
  local_plugins: [jobs.py]
  jobs:
    - extension: jobs
      job: greet
      schedule: "*/5 * * * * *"
"""


def test_what_looks_wrong_is_exit_1_with_its_code_and_line(cli, new_project):
    root = new_project(config=SUSPICIOUS)
    answer = cli("--root", root, "infra", "jobs", "check")
    assert answer.code == 1
    assert "[five-fields]" in answer.out
    assert f"at {root}/services/scheduler/config.yaml:7" in answer.out


def test_a_code_is_silenced_in_the_entry(cli, new_project):
    root = new_project(config=SUSPICIOUS + "      silence: [five-fields, dry-run]\n")
    assert cli("--root", root, "infra", "jobs", "check").code == 0


def test_an_unknown_code_is_a_mistake(cli, new_project):
    root = new_project(config=SUSPICIOUS + "      silence: [six-fields]\n")
    answer = cli("--root", root, "infra", "jobs", "check")
    assert answer.code == 2
    assert "silence[0]: is \"six-fields\", not 'never-fires'" in answer.out


def test_annotations_name_the_line_from_the_working_directory(cli, new_project, monkeypatch):
    root = new_project(config=SUSPICIOUS)
    monkeypatch.chdir(root)
    (line,) = cli("--root", root, "infra", "jobs", "check", "--github").out.splitlines()
    assert line.startswith(
        "::warning file=services/scheduler/config.yaml,line=7::jobs:greet: '*/5 * * * * *' looks"
    )


def test_the_difference_to_the_database_is_shown(cli, new_project):
    root = new_project()

    def check(*options):
        return cli("--root", root, "infra", "jobs", "check", "--diff", *options)

    assert "new, 0 */10 * * * *" in check().out
    cli("--root", root, "infra", "jobs", "run", "greet")
    config = root / "services/scheduler/config.yaml"
    config.write_text(SUSPICIOUS.replace("*/5 * * * * *", "0 */20 * * * *"))
    changes = check("--json").json["changes"]
    assert {
        "job_id": "jobs:greet",
        "setting": "schedule",
        "now": "0 */10 * * * *",
        "then": "0 */20 * * * *",
    } in changes


POOLS = """
scheduler:
  local_plugins: [jobs.py]
  executors:
    mine: {kind: nowhere}
    idle: {kind: threads, sise: 3}
  jobs:
    - {extension: jobs, job: greet, executor: mine}
    - {extension: jobs, job: "off", executor: mime}
"""


def test_pools_that_do_not_exist_or_would_not_work_are_found_with_their_lines(cli, new_project):
    root = new_project(config=POOLS)
    config = root / "services/scheduler/config.yaml"
    (error,) = cli("--root", root, "infra", "jobs", "check", "--json").json["errors"]
    assert (error["culprit"], error["line"]) == ("scheduler.jobs[1].executor", 9)
    assert "did you mean 'mine'?" in error["reason"]
    config.write_text(POOLS.replace("mime", "mine"))
    answer = cli("--root", root, "infra", "jobs", "check", "--json")
    (error,) = answer.json["errors"]
    assert answer.code == 2
    assert (error["culprit"], error["line"]) == ("scheduler.executors.mine", 5)
    assert error["remedy"] == "built in are threads, processes and asyncio"
    config.write_text(POOLS.replace("mime", "mine").replace("nowhere", "threads"))
    answer = cli("--root", root, "infra", "jobs", "check", "--json")
    assert (answer.code, answer.json["errors"]) == (1, [])
    (warning,) = [p for p in answer.json["warnings"] if p["culprit"].startswith("scheduler.exec")]
    assert (warning["culprit"], warning["line"]) == ("scheduler.executors.idle", 6)
    assert "did you mean 'size'?" in warning["reason"]


def test_the_author_of_a_job_says_that_it_may_be_repeated(cli, new_project):
    text = "from systemprompt_jobs import job\n@job(max_attempts=2)\ndef sync(): ...\n"
    root = new_project(text, "scheduler: {local_plugins: [jobs.py]}")
    warnings = cli("--root", root, "infra", "jobs", "check", "--json").json["warnings"]
    assert [(p["code"], p["line"]) for p in warnings] == [("retries", 2)]
    (root / "jobs.py").write_text(text.replace("=2", "=2, repeatable=True"))
    assert cli("--root", root, "infra", "jobs", "check").code == 0
