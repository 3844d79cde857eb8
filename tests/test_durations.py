"""Durations as people write them."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systemprompt_jobs import _durations
from systemprompt_jobs._durations import parse


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("24h", 86_400),
        ("30d", 30 * 86_400),
        ("2w", 14 * 86_400),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
        (" 1.5h ", 5_400),
        ("90", 90),
        ("0.5", 0.5),
        ("0s", 0),
        (90, 90),
        (0.25, 0.25),
        (timedelta(minutes=1), 60),
    ],
)
def test_reads(value, seconds):
    assert parse(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        "", "s",
        "30m1h", "1h1h", "5 minutes", "5M", "1d-2h", "-5s", "1e3", "PT5M", "12:30",
        "9" * 400, "9" * 20 + "w", -1, -0.5, math.nan, math.inf, True, None, [], timedelta(-1),
    ],
)  # fmt: skip
def test_refuses_with_the_value_and_examples(value):
    with pytest.raises(ValueError, match=r"is no duration: write 30s, 5m, 1h30m, 30d or 2w$"):
        parse(value)


@given(st.text() | st.floats() | st.integers())
def test_never_raises_anything_else(value):
    try:
        assert parse(value) >= timedelta(0)
    except ValueError as error:
        assert "is no duration" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("written", ["0s", "1m", "1h30m", "2d5s", "0.5s", "5m1s"])
def test_a_duration_is_said_as_it_is_written(written):
    assert _durations.text(parse(written)) == written
