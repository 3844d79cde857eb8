from __future__ import annotations

import json


def test_the_schema_before_and_after_an_upgrade(jobs):
    assert jobs("db", "current", "--json").json["schema"] is None
    assert "was none" in jobs("db", "upgrade").out
    found = jobs("db", "current", "--json").json
    assert found["schema"] == found["newest"]
    assert "as before" in jobs("db", "upgrade").out
    assert "up to date" in jobs("db", "current").out


def test_an_export_is_imported_into_a_new_database(jobs, project, tmp_path):
    jobs("run", "greet")
    dump = tmp_path / "dump.jsonl"
    answer = jobs("db", "export", dump)
    assert answer.code == 0
    assert f"rows in {dump}" in answer.out
    history = jobs("history", "--json").out
    (project / "profile.yaml").write_text("scheduler: {database: 'sqlite:///var/new.db'}")
    answer = jobs("db", "import", dump)
    assert answer.code == 0
    assert "        1  jobs_run\n" in answer.out
    assert jobs("history", "--json").out == history


def test_an_export_to_standard_output_is_json_lines(jobs):
    jobs("run", "greet")
    head, *rows = map(json.loads, jobs("db", "export").out.splitlines())
    assert head["format"] == "systemprompt-jobs"
    assert {"jobs_job", "jobs_node", "jobs_run", "jobs_attempt"} <= {row["table"] for row in rows}


def test_a_file_that_exists_is_not_overwritten(jobs, tmp_path):
    jobs("run", "greet")
    (tmp_path / "dump").write_text("precious")
    answer = jobs("db", "export", tmp_path / "dump")
    assert answer.code == 2
    assert "exists: name a new file" in answer.err
    assert (tmp_path / "dump").read_text() == "precious"


def test_a_file_that_is_not_there_is_wrong_use(jobs, tmp_path):
    answer = jobs("db", "import", tmp_path / "none")
    assert answer.code == 2
    assert "cannot be read" in answer.err


def test_without_a_database_there_is_nothing_to_export(jobs):
    answer = jobs("db", "export")
    assert answer.code == 3
    assert "there is no database sqlite:///" in answer.err
