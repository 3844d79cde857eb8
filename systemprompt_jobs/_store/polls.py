"""What a scheduler asks each second, also when there is nothing to do: one statement."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, select

from .pending import waits_for_node
from .schema import Instant, audit

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Select

    from ._questions import Asked


class News(NamedTuple):
    """Whether a run waits for a node, and for nothing else; the newest entry of the audit."""

    pending: bool
    audit: int


def look(connection: Asked, job_set: str, now: datetime) -> News:
    """Look for pending runs of a job set and for what operators did.

    Uses what `take_pending` does, and the primary key of `jobs_audit`.
    """
    values = {"the_set": job_set, "the_time": now}
    (row,) = connection.execute(_statement(), values)
    return News(row.pending is not None, row.newest or 0)


@functools.cache
def _statement() -> Select[Any]:
    """Build it once: that costs more than to ask the database."""
    pending = waits_for_node(bindparam("the_set"), bindparam("the_time", type_=Instant))
    newest = select(func.max(audit.c.id))
    first = pending.limit(1).scalar_subquery().label("pending")
    return select(first, newest.scalar_subquery().label("newest"))
