"""Statements on what attempts say while they run: progress, logs, notes."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from ..model import EMPTY, AttemptOverview, Progress, State
from ._bulk import select_many, update_many
from .schema import EPOCH, MICROSECOND, attempt, micros, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from ..model import Report, Run

Words = tuple[str, "Mapping[str, Any]"]
"""A log's tail, and notes."""

_COLUMNS = tuple(f.name for f in fields(AttemptOverview) if f.name != "log_cut")


def write(
    connection: Connection,
    progress: Sequence[tuple[Run, Progress]],
    words: Sequence[tuple[Run, Words]],
) -> set[tuple[int, int]]:
    """Write down what running attempts have said; return (run, fence) of those that still run."""
    ids = {r.id for r, _ in (*progress, *words)}
    found = select_many(connection, run, ("id", "fence", "state"), "id", ids, "FOR UPDATE")
    running = {(id_, fence) for id_, fence, state in found if state == State.RUNNING}
    _write_progress(connection, [(r, p) for r, p in progress if (r.id, r.fence) in running])
    _write_words(connection, [(r, w) for r, w in words if (r.id, r.fence) in running])
    return running


def keep(connection: Connection, ended: Iterable[tuple[Run, Report]]) -> None:
    """Write down all that attempts said which end in this transaction; most said nothing."""
    spoken = [(r, said) for r, said in ended if said.log or said.annotations or said.progress]
    _write_progress(connection, [(r, said.progress) for r, said in spoken if said.progress])
    _write_words(connection, [(r, (said.log, said.annotations)) for r, said in spoken])


def _write_progress(connection: Connection, said: Iterable[tuple[Run, Progress]]) -> None:
    rows = [
        (
            {"fence": r.fence, "at": micros(p.at), "said": [p.done, p.total, p.message]},
            r.id,
            r.fence,
        )
        for r, p in said
    ]
    update_many(connection, run, ("id", "fence"), ("progress",), rows)


def _write_words(connection: Connection, said: Iterable[tuple[Run, Words]]) -> None:
    rows = [(log, dict(notes) or None, r.id, r.fence) for r, (log, notes) in said]
    update_many(connection, attempt, ("run_id", "fence"), ("log", "annotations"), rows)


def to_progress(stored: Mapping[str, Any] | None, fence: int) -> Progress | None:
    """Return what a run's column says, if it is of the claim that holds the run now."""
    if not stored or stored["fence"] != fence:
        return None
    done, total, message = stored["said"]
    return Progress(done, total, message, EPOCH + stored["at"] * MICROSECOND)


def attempts_of(connection: Connection, run_id: int) -> list[AttemptOverview]:
    """Return the attempts of a run, oldest first, each with its log as stored."""
    rows = connection.execute(
        select(*(attempt.c[name] for name in _COLUMNS))
        .where(attempt.c.run_id == run_id)
        .order_by(attempt.c.fence)
    )
    return [_to_attempt(row._asdict()) for row in rows]


def _to_attempt(values: dict[str, Any]) -> AttemptOverview:
    outcome, notes = values.pop("outcome"), values.pop("annotations")
    return AttemptOverview(**values, outcome=outcome and State(outcome), annotations=notes or EMPTY)
