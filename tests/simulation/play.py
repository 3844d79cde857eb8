"""Play one seed's day in a folder of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import structlog

from tests.simulation.day import Day

if TYPE_CHECKING:
    from collections import Counter


@dataclass(frozen=True, slots=True)
class Played:
    """How a day went: what was wrong after it, as text, and then what had happened."""

    seed: int
    ticks: int
    faults: Counter[str]
    wrong: list[str]
    story: str


def play(seed: int, nodes: int = 3, hours: float = 24, about: str = "", *, tell=False) -> Played:
    """Live through the day of a seed. The story is told if something is wrong or `tell`."""
    before, chance = structlog.get_config(), random.getstate()
    random.seed(seed)  # what prunes draws from it when to
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        with TemporaryDirectory() as folder:
            day = Day(seed, Path(folder), nodes, hours)
            wrong = [str(violation) for violation in day.play()]
    finally:
        structlog.configure(**before)
        random.setstate(chance)
    return Played(seed, day.ticks, day.faults, wrong, day.story(about) if wrong or tell else "")
