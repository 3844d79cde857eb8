from __future__ import annotations


def test_each_finding_is_one_line_with_its_remedy_below_and_exit_1(jobs):
    jobs("run", "greet")
    answer = jobs("doctor")
    assert answer.code == 1
    database, recording, clock, schedulers, remedy, *others = answer.out.splitlines()
    assert database.startswith("✓ scheduler's database: sqlite:///")
    assert recording == "✓ recording: a change can be written to the database"
    assert clock.startswith("✓ clock: ")
    assert schedulers == "✗ schedulers: none is live, so no tick runs"
    assert all(line.startswith("✓ ") for line in others if "time zone data" not in line)
    assert remedy == "    start one: systemprompt infra jobs serve"


def test_all_well_is_exit_0(jobs, started, project):
    scheduler = started("--root", project, "infra", "jobs", "serve")
    scheduler.line_with("scheduler_started")
    answer = jobs("doctor", "--json")
    bad = {f["subject"] for f in answer.json["findings"] if not f["ok"]} - {"time zone data"}
    assert bad == set()
    assert answer.code == (0 if answer.json["ok"] else 1)


def test_json_has_every_finding(jobs):
    answer = jobs("doctor", "--json")
    assert (answer.code, answer.json["ok"]) == (1, False)
    finding, *_ = answer.json["findings"]
    assert finding.keys() == {"subject", "ok", "said", "remedy"}
    assert finding["said"].endswith("does not exist yet")


def test_it_fits_a_terminal(terminal, project, tmp_path):
    answer = terminal("--root", project, "infra", "jobs", "doctor").end()
    lines = [line for line in answer.out.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
