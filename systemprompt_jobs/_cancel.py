"""Cancels a run, wherever it is, in one transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ._store import cancels
from ._store import jobs as job_rows
from .errors import UsageError
from .model import Report, Run, State

if TYPE_CHECKING:
    from ._store import Store, StoreClock


def cancel(store: Store, clock: StoreClock, run_id: int, note: str, who: str) -> Run:
    """Cancel a run that waits, ask the node of one that runs; return it as it is now.

    Raises UsageError for a run that does not exist or has ended.
    """
    why = f"cancelled by {who}" if who else "cancelled"
    why += f": {note}" if note else ""
    with store.write() as connection:
        now = clock.read(connection)
        found = cancels.cancel(connection, [run_id], why, now)
        if not found:
            raise UsageError(f"there is no run {run_id}; `history` lists them")
        (run,) = found
        if run.finished is not None:
            raise UsageError(f"run {run_id} of {run.job_id} has ended: it is {run.state}")
        job_rows.add_audit(connection, now, who, "cancel", f"run {run_id} of {run.job_id}", note)
    if run.state is State.RUNNING:
        return replace(run, message=why)
    return replace(
        run, state=State.CANCELLED, reason="", fence=run.fence + 1, finished=now, message=why
    )


def report_of(run: Run) -> Report:
    """Return the report of a run that was cancelled while it waited."""
    assert run.finished is not None  # noqa: S101  # it has just ended
    began = run.started or run.finished
    return Report(State.CANCELLED, began, run.finished, message=run.message, error=run.error)
