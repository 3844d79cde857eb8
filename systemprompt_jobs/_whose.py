"""Whose plan of a job is in force where nodes disagree? What plans and versions are compared by."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import re
import zoneinfo
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from .model import CatchUp, Overlap, Plan

_VERSION = re.compile(
    r"(?:(\d+)!)?(\d+(?:\.\d+)*)"  # epoch, release
    r"(?:(a|b|rc)(\d+))?(?:\.post(\d+))?(?:\.dev(\d+))?(?:\+[a-z0-9.]+)?",
    re.ASCII,
)
"""A version as PEP 440 writes it, and as installers normalise it."""

_FINAL = "z"
"""Stands behind `a`, `b` and `rc`."""


def fingerprint(plan: Plan) -> str:
    """Return what two plans share exactly when they have the same ticks and policies.

    A disabled job has no ticks, whatever its schedule.
    """
    schedule = plan.schedule.text if plan.enabled and plan.schedule else ""
    policies = (plan.overlap, plan.splay, plan.catch_up, plan.catchup_window)
    return _mark(schedule, plan.timezone, policies, zone_data_version())


@functools.lru_cache(maxsize=4096)
def _mark(
    schedule: str,
    timezone: str,
    policies: tuple[Overlap, timedelta, CatchUp, timedelta],
    zone_data: str,
) -> str:
    """Return the digest: one text for all jobs that share it."""
    overlap, splay, catch_up, window = policies
    parts = (schedule, timezone, overlap, splay, catch_up, whole_seconds(window), zone_data)
    return _digest("|".join(map(str, parts)))


def whole_seconds(duration: timedelta) -> int:
    """Return at least one second."""
    return max(1, round(duration.total_seconds()))


def set_hash(fingerprints: Mapping[str, str]) -> str:
    """Return what nodes share exactly when they have the same jobs with the same plans."""
    return _digest("\n".join(f"{id_} {fingerprints[id_]}" for id_ in sorted(fingerprints)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def zone_data_version() -> str:
    """Return the version of the zone data that zoneinfo reads: the system's, else tzdata's."""
    for folder in zoneinfo.TZPATH:
        with contextlib.suppress(OSError):
            return Path(folder, "tzdata.zi").read_text("ascii").partition("\n")[0]
    return importlib.metadata.version("tzdata")


def is_older(version: str, other: str) -> bool:
    """Return whether a distribution's version comes before another one, by PEP 440.

    What is no such version comes before nothing; local parts (`+…`) are not compared.
    """
    mine, theirs = _VERSION.fullmatch(version), _VERSION.fullmatch(other)
    return mine is not None and theirs is not None and _order(mine) < _order(theirs)


def _order(version: re.Match[str]) -> tuple[object, ...]:
    epoch, release, kind, number, post, dev = version.groups()
    numbers = [int(part) for part in release.split(".")]
    while numbers and not numbers[-1]:  # 1.0 is 1
        numbers.pop()
    if kind is None:  # 1.0.dev1 comes before 1.0a1
        kind = "" if dev and not post else _FINAL
    return (
        *(int(epoch or 0), tuple(numbers), kind, int(number or 0)),
        *(int(post) if post else -1, dev is None, int(dev or 0)),
    )
