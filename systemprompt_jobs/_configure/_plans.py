"""Decide for each job: every effective value, and the layers that set it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .. import _parameters
from .._model import EMPTY, Overlap, Plan, Problem, Source
from ..errors import ConfigurationError, ParameterError, ScheduleError
from ._entries import match_entries
from ._project import CONFIG
from ._settings import in_file_order
from ._zones import check_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._model import CollectedJob, Collection
    from ..interfaces import Schedule
    from ._layers import Entry
    from ._settings import Settings

    Parse = Callable[[str, str], Schedule]


def make_plans(settings: Settings, collection: Collection, parse: Parse) -> tuple[Plan, ...]:
    """Return one plan per collected job, in the collection's order.

    `parse(text, timezone)` reads a schedule and raises ScheduleError. What a plugin's author did
    wrong is the plan's `problem`; what stands in the files raises ConfigurationError, with all
    that is wrong in `settings` and its entries, in file order.
    """
    entries, problems, _ = match_entries(settings, collection)
    drafts = [_Draft(job, settings, entries.get(job.id, ()), parse) for job in collection.jobs]
    plans = tuple(draft.plan(collection.degraded.get(draft.id)) for draft in drafts)
    wrong = [problem for draft in drafts for problem in draft.wrong]
    if everything := (*settings.problems, *problems, *wrong):
        raise ConfigurationError(in_file_order(everything))
    return plans


def make_warnings(settings: Settings, collection: Collection) -> tuple[Problem, ...]:
    """Return `settings.warnings` and the entries that have no effect for a forgivable reason."""
    return (*settings.warnings, *match_entries(settings, collection)[2])
