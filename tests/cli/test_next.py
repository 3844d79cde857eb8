from __future__ import annotations

import re

import pytest

MARCH = "2026-03-28T00:00"


def ticks(answer):
    return [tick["tick"] for tick in answer.json["ticks"]]


def test_one_job_shows_its_upcoming_ticks(jobs):
    answer = jobs("next", "greet", "-n", "2", "--from", "2026-05-01T08:00Z", "--json")
    assert ticks(answer) == ["2026-05-01T08:10:00+00:00", "2026-05-01T08:20:00+00:00"]
    assert answer.json["schedule"] == {
        "text": "0 */10 * * * *",
        "description": "every 10 minutes, UTC",
        "warnings": [],
    }


def test_without_a_job_the_ticks_of_all_enabled_jobs_come_in_order(cli, new_project):
    more = '\n@job(schedule="0 5 * * * *")\ndef five(): ...\n'
    root = new_project('from systemprompt_jobs import job\n@job(schedule="0 0 * * * *")\n'
                       'def zero(): ...\n@job(schedule="@hourly", enabled=False)\n'
                       'def off(): ...\n@job\ndef by_hand(): ...\n' + more,
                       "scheduler:\n  local_plugins: [jobs.py]\n")  # fmt: skip
    answer = cli("--root", root, "infra", "jobs", "next", "-n", "3", "--json")
    found = [(tick["job"], tick["tick"][14:16]) for tick in answer.json["ticks"]]
    assert sorted(found[:2]) == [("jobs:five", "05"), ("jobs:zero", "00")]
    assert ticks(answer) == sorted(ticks(answer))


def explain(cli, *arguments):
    return cli("infra", "jobs", "next", "--schedule", *arguments)


def test_a_schedule_is_explained_without_a_project(cli):
    answer = explain(cli, "0 0 8 * * MON-FRI", "--tz", "Europe/Berlin", "-n", "1")
    assert answer.code == 0
    assert "means  Monday to Friday at 08:00, Europe/Berlin" in answer.out
    assert "TICK (Europe/Berlin)" in answer.out


def test_utc_stands_beside_the_time_of_another_zone_to_the_second(cli):
    answer = explain(cli, "*/10 * * * * *", "--tz", "Europe/Berlin", "--from", MARCH, "-n", "2")
    assert " 2026-03-28 00:00:10  03-27 23:00:10 " in answer.out


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("* * * * * *", "fires every second"),
        ("0 30 2 * * *", "falls in the hour that is skipped in spring"),
        ("0 0 0 13 * FRI", "day of month and day of week are OR-ed"),
    ],
)
def test_what_might_surprise_is_said(cli, text, warning):
    assert f"note: {warning}" in explain(cli, text, "--tz", "Europe/Berlin").out


def test_changes_of_the_clocks_are_marked(cli):
    answer = explain(
        cli, "0 30 2 * * *", "--tz", "Europe/Berlin", "--from", MARCH, "-n", "3", "--json"
    )
    assert [(tick["local"], tick["note"]) for tick in answer.json["ticks"]] == [
        ("2026-03-28T02:30:00+01:00", None),
        ("2026-03-29T03:00:00+02:00", "clocks went forward 1 h"),
        ("2026-03-30T02:30:00+02:00", None),
    ]
    lord_howe = explain(
        cli, "0 0 12 * * *", "--tz", "Australia/Lord_Howe", "--from", "2026-04-04", "-n", "3"
    )
    assert "clocks went back 30 min" in lord_howe.out


def test_a_start_without_an_offset_is_in_the_zone_shown(cli):
    answer = explain(cli, "@hourly", "--tz", "Asia/Tokyo", "--from", "2026-01-01T09:30", "-n", "1",
                     "--json")  # fmt: skip
    assert ticks(answer) == ["2026-01-01T01:00:00+00:00"]


def test_times_can_be_shown_in_another_zone_than_the_jobs(jobs):
    answer = jobs("next", "greet", "--tz", "Asia/Kolkata", "-n", "1", "--json")
    assert answer.json["timezone"] == "Asia/Kolkata"
    assert answer.json["ticks"][0]["local"].endswith("+05:30")


def test_an_interval_is_explained_too(cli):
    answer = explain(cli, "every: 90 s", "--from", "1970-01-01T00:00Z", "-n", "1", "--json")
    assert ticks(answer) == ["1970-01-01T00:01:30+00:00"]


def test_a_disabled_job_is_shown_and_said_to_be_disabled(jobs):
    answer = jobs("next", "off", "-n", "1")
    assert answer.code == 0
    assert "jobs:off is disabled" in answer.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["greet", "--schedule", "@daily"], "not both"),
        (["--schedule", "*/5 * * * *"], "seconds come first: try '0 */5 * * * *'"),
        (["--schedule", "@daily", "--tz", "Europe/Berln"], "did you mean Europe/Berlin"),
        (["--schedule", "evry: 5m"], "no plugin knows the form 'evry: …'; built in is 'every: 5m'"),
        (["--schedule", "@daily", "--from", "soon"], "--from soon: write a time such as"),
        (["fail"], "has no schedule"),
        (["gret"], "did you mean"),
        (["greet", "-n", "0"], "0 is not in the range"),
    ],
)
def test_bad_input_is_one_clear_error(jobs, arguments, message):
    answer = jobs("next", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_a_schedule_that_never_fires_says_so(jobs):
    answer = jobs("next", "--schedule", "0 0 0 29 2 *", "--from", "2026-01-01", "-n", "2", "--json")
    assert [tick[:10] for tick in ticks(answer)] == ["2028-02-29", "2032-02-29"]
    over = jobs("next", "--schedule", "0 0 0 29 2 *", "--from", "9999-01-01")
    assert "no tick from then on" in over.out


def test_the_table_fits_80_columns(terminal):
    shown = terminal(
        "infra", "jobs", "next", "--schedule", "0 30 2 * * *", "--tz", "America/New_York",
        "--from", "2026-03-07",
    ).end()  # fmt: skip
    assert "clocks went forward 1 h" in shown.out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.out)
    assert max(map(len, plain.splitlines())) <= 80
