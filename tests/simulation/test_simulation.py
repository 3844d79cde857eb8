"""Days of three schedulers with faults at random, on virtual time: 500 of them in all.

`make simulate SEEDS=5000` plays more; `make simulate ONLY=17` plays one and tells its story.
"""

from __future__ import annotations

import pytest

from tests.simulation.play import play

DAYS, AT_ONCE = 500, 10


@pytest.mark.parametrize("first", range(0, DAYS, AT_ONCE))
def test_nothing_is_lost_doubled_or_early_whatever_happens(first):
    for seed in range(first, first + AT_ONCE):
        day = play(seed)
        assert not day.wrong, "\n".join([f"seed {seed}:", *day.wrong, day.story])


def test_a_seed_is_the_same_day_each_time():
    one, two = play(3, hours=6, tell=True), play(3, hours=6, tell=True)
    assert one == two
    assert one.story.count("function_began") > 5
    assert one.faults.total() > 0
