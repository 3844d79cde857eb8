"""Play one seed's day in a folder of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest.mock import patch

import structlog

from systemprompt_jobs import _claim, _collect
from systemprompt_jobs._collect import _find
from tests.simulation.day import Day
from tests.simulation.faults import LEASE_S

if TYPE_CHECKING:
    from collections import Counter


_LOOK = timedelta(seconds=LEASE_S / 3)
"""So often a node looks whether the run has ended for which a caught-up tick waits."""

_installed = cache(lambda: tuple(_find.installed()))
"""What is installed does not change, and a day sees some ten starts."""


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
        with (
            # It is a look like those of the world's `look_s`, but an appointment to the world.
            patch.object(_claim, "_LOOK_AGAIN", _LOOK),
            patch.object(_collect, "installed", _installed),
            TemporaryDirectory() as folder,
        ):
            day = Day(seed, Path(folder), nodes, hours)
            wrong = [str(violation) for violation in day.play()]
    finally:
        structlog.configure(**before)
        random.setstate(chance)
    return Played(seed, day.ticks, day.faults, wrong, day.story(about) if wrong or tell else "")
