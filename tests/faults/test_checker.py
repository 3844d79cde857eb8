"""The checker finds each kind of harm: every test doctors one thing in a sound history."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.faults.checker import SECOND, Effect, Row, check, held, read_effects, ticks, unstarted

T0 = 1_772_445_600 * SECOND
"""2026-03-02T10:00:00Z, a Monday."""

JOBS = {"x:each": "* * * * * *"}
ROWS = [Row(n, "x:each", "succeeded", T0 + n * SECOND) for n in (1, 2, 3)]
EFFECTS = [
    Effect(event, "x:each", T0 + n * SECOND, n, 1, 7, T0 + n * SECOND + 5)
    for n in (1, 2, 3)
    for event in ("START", "END")
]


def kinds(rows=ROWS, effects=EFFECTS, until=3, **values):
    found = check(JOBS, rows, effects, since=T0, until=T0 + until * SECOND, **values)
    return sorted({violation.invariant for violation in found})


def test_a_sound_history_passes():
    assert kinds(marks=[{}, {"x:each": T0}, {"x:each": T0 + SECOND}]) == []


def test_a_stretch_covers_its_ticks():
    stretch = Row(4, "x:each", "missed", T0 + 4 * SECOND, T0 + 9 * SECOND, 6)
    assert kinds([*ROWS, stretch], until=9) == []


@pytest.mark.parametrize(("last", "count"), [(8, 6), (9, 5), (10, 6)])
def test_a_stretch_with_a_wrong_count_is_found(last, count):
    stretch = Row(4, "x:each", "missed", T0 + 4 * SECOND, T0 + last * SECOND, count)
    assert kinds([*ROWS, stretch]) == ["I1"]


def test_a_gap_is_found():
    assert kinds([ROWS[0], ROWS[2]], [e for e in EFFECTS if e.run != 2]) == ["I1"]


def test_the_last_tick_may_not_be_forgotten():
    assert kinds(until=4) == ["I1"]


def test_two_rows_for_a_tick_are_found():
    assert kinds([*ROWS, replace(ROWS[0], id=9, state="missed")]) == ["I1"]


def test_a_row_that_overlaps_a_stretch_is_found():
    stretch = Row(9, "x:each", "missed", T0 + 2 * SECOND, T0 + 4 * SECOND, 3)
    assert kinds([*ROWS, stretch]) == ["I1"]


def test_a_row_at_an_instant_that_is_no_tick_is_found():
    assert kinds([*ROWS, Row(9, "x:each", "skipped", T0 + SECOND // 2)]) == ["I1"]


def test_a_start_without_a_row_is_found():
    assert kinds(effects=[*EFFECTS, replace(EFFECTS[0], run=9, tick=None)]) == ["I1"]


def test_a_second_attempt_that_nobody_allowed_is_found():
    again = replace(EFFECTS[0], fence=2)
    assert kinds(effects=[*EFFECTS, again]) == ["I2"]
    assert kinds([replace(ROWS[0], max_attempts=2), *ROWS[1:]], [*EFFECTS, again]) == []


def test_a_tick_that_was_started_under_two_runs_is_found():
    manual = Row(9, "x:each", "lost", None)
    assert kinds([*ROWS, manual], [*EFFECTS, replace(EFFECTS[0], run=9)]) == ["I2"]


def test_a_claim_that_was_started_twice_is_found():
    rows = [replace(ROWS[0], max_attempts=2), *ROWS[1:]]
    assert kinds(rows, [*EFFECTS, EFFECTS[0]]) == ["I3"]


def test_a_success_that_never_came_to_its_end_is_found():
    assert kinds(effects=EFFECTS[:-1]) == ["I4"]


def test_what_is_lost_without_having_started_is_counted():
    lost = [replace(row, state="lost") for row in ROWS]
    assert unstarted(lost, EFFECTS) == []
    assert unstarted(lost, [e for e in EFFECTS if e.run != 2]) == [lost[1]]


def test_a_success_under_another_fence_is_found():
    assert kinds([replace(ROWS[0], fence=2), *ROWS[1:]]) == ["I4"]


@pytest.mark.parametrize("state", ["pending", "claimed", "dispatched", "running"])
def test_a_due_tick_without_an_end_is_found(state):
    rows = [*ROWS[:2], replace(ROWS[2], state=state)]
    assert kinds(rows) == ["I5"]
    assert kinds(rows, until=2) == []  # not due within the bound


def test_an_early_start_is_found():
    assert kinds(effects=[replace(EFFECTS[0], wall=T0 + SECOND - 1), *EFFECTS[1:]]) == ["I6"]


@pytest.mark.parametrize("after", [{"x:each": T0}, {}])
def test_a_mark_that_falls_or_vanishes_is_found(after):
    assert kinds(marks=[{"x:each": T0 + SECOND}, after]) == ["I7"]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("*/20 * * * * *", [20, 40, 60, 80]),
        ("7 * * * * *", [7, 67]),
        ("0 * * * * *", [60]),
        ("0 1 10 2 3 1", [60]),
        ("0 1 10 */2 * *", []),  # the second day is none of 1, 3, 5 …
        ("0 0 11 * * 1", []),
    ],
)
def test_the_calendar(cron, expected):
    found = list(ticks(cron, T0, T0 + 80 * SECOND))
    assert found == [T0 + seconds * SECOND for seconds in expected]


def test_lines_of_the_log_are_read_back(tmp_path):
    line = {"event": "START", "job": "x:y", "tick": None, "run": 1, "fence": 2, "pid": 3, "wall": 4}
    (tmp_path / "log").write_text(json.dumps(line) + "\n", "ascii")
    assert read_effects(tmp_path / "log") == [Effect("START", "x:y", None, 1, 2, 3, 4)]
    assert read_effects(tmp_path / "none") == []


def test_what_is_held_after_all_nodes_have_stopped_is_found():
    rows = [Row(n, "a", state, None) for n, state in enumerate(("running", "claimed"))]
    rows += [Row(2, "a", "pending", None), Row(3, "a", "lost", None)]
    assert [found.text.split()[1] for found in held(rows)] == ["0", "1"]
