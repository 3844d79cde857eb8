"""Statements on whose plan is in force: job rows beside the job sets of the schedulers that live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, func, or_, select

from ._bulk import among, insert_many
from .nodes import is_live, is_unburied
from .schema import job, job_set, node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select

    from ._questions import Asked

_LIVE = is_live(bindparam("lease_now"), bindparam("the_boot"))

_NEWEST = select(func.max(node.c.started)).where(node.c.kind == "scheduler").scalar_subquery()

_SCHEDULERS = select(node.c.id, _LIVE.label("live")).where(
    node.c.kind == "scheduler", or_(_LIVE, node.c.started == _NEWEST)
)


_ROWS = 1000
"""Rows per statement: what is made of them takes memory."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The plan that is in force for a job, and a live scheduler that has the same, if any."""

    id: str
    fingerprint: str
    next_tick: datetime | None
    schedule: str
    distribution: str
    version: str
    node: str | None


def add_set(connection: Connection, digest: str, fingerprints: Mapping[str, str]) -> None:
    """Remember which jobs a node has, and by which plans; written once per set.

    Rows that are there already are locked: nobody deletes them before this node is on record.
    """
    found = (
        select(job_set.c.hash)
        .where(job_set.c.hash == digest)
        .with_for_update(read=True, key_share=True)
    )
    counted = select(func.count()).select_from(found.subquery())
    if connection.execute(counted).scalar_one() == len(fingerprints):
        return
    ids = sorted(fingerprints)
    for start in range(0, len(ids), _ROWS):
        rows = [(digest, id_, fingerprints[id_]) for id_ in ids[start : start + _ROWS]]
        insert_many(connection, job_set, ("hash", "job_id", "fingerprint"), rows)


def standing(
    connection: Connection,
    ids: Iterable[str],
    lease_now: int,
    boot: str,
    *,
    but: str = "",
    unburied: bool = False,
) -> dict[str, Standing]:
    """Return how these jobs stand; the node `but` does not count as one that has their plan.

    With `unburied` a scheduler counts as live until others have buried it.
    Uses the primary keys of `jobs_job` and `jobs_job_set`.
    """
    chosen = list(ids)
    if not chosen:
        return {}
    plans = _held(_others(lease_now, boot, but, unburied=unburied))
    held = plans.where(among(connection, job_set.c.job_id, chosen)).subquery()
    same = and_(held.c.job_id == job.c.id, held.c.fingerprint == job.c.fingerprint)
    columns = (job.c.id, job.c.fingerprint, job.c.next_tick, job.c.schedule)
    rows = connection.execute(
        select(*columns, job.c.distribution, job.c.version, held.c.node)
        .outerjoin(held, same)
        .where(among(connection, job.c.id, chosen))
    )
    return {row.id: Standing(*row) for row in rows}


def holders(
    connection: Connection,
    ids: Iterable[str],
    lease_now: int,
    boot: str,
    but: str,
    *,
    unburied: bool,
) -> dict[tuple[str, str], str]:
    """Return which live scheduler has which plan of these jobs: by (job, fingerprint).

    As `standing` does; where there is no other scheduler at all, one small statement tells.
    """
    chosen = list(ids)
    others = _others(lease_now, boot, but, unburied=unburied)
    if not chosen or connection.execute(select(node.c.id).where(others).limit(1)).first() is None:
        return {}
    plans = _held(others).where(among(connection, job_set.c.job_id, chosen))
    return {(row.job_id, row.fingerprint): row.node for row in connection.execute(plans)}


def _others(lease_now: int, boot: str, but: str, *, unburied: bool) -> ColumnElement[bool]:
    live = is_unburied(boot) if unburied else is_live(lease_now, boot)
    return and_(live, node.c.id != but)


def _held(others: ColumnElement[bool]) -> Select[tuple[str, str, str]]:
    return (
        select(job_set.c.job_id, job_set.c.fingerprint, func.min(node.c.id).label("node"))
        .join(node, node.c.job_set == job_set.c.hash)
        .where(others)
        .group_by(job_set.c.job_id, job_set.c.fingerprint)
    )


def replaced(connection: Connection, digest: str) -> set[str]:
    """Return the jobs of a set for which another plan than the set's is in force."""
    rows = connection.execute(
        select(job.c.id)
        .join(job_set, job_set.c.job_id == job.c.id)
        .where(job_set.c.hash == digest, job_set.c.fingerprint != job.c.fingerprint)
    )
    return set(rows.scalars())


def schedulers(connection: Asked, lease_now: int, boot: str) -> frozenset[tuple[str, bool]]:
    """Return what changes whenever a scheduler joins, leaves or dies, however soon it left."""
    rows = connection.execute(_SCHEDULERS, {"lease_now": lease_now, "the_boot": boot})
    return frozenset((row.id, bool(row.live)) for row in rows)


def provided(connection: Connection, lease_now: int, boot: str) -> set[str]:
    """Return the jobs that the live schedulers have."""
    rows = connection.execute(
        select(job_set.c.job_id)
        .join(node, node.c.job_set == job_set.c.hash)
        .where(is_live(lease_now, boot))
        .distinct()
    )
    return set(rows.scalars())
