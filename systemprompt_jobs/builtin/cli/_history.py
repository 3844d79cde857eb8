"""`history`: the newest runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from systemprompt_jobs.errors import UnknownJobError, UsageError

from ._lazy import near
from ._options import as_json
from ._runs import STATES, show_runs
from ._shapes import print_json, run_shape
from ._text import say
from ._times import now

if TYPE_CHECKING:
    from systemprompt_jobs import Runtime

    from ._session import Session


def _known(
    _ctx: click.Context, _param: click.Parameter, states: tuple[str, ...]
) -> tuple[str, ...]:
    for state in states:
        if state not in STATES:
            raise click.BadParameter(f"there is no state {state!r}; {near(state, STATES)}")
    return states


@click.command("history")
@click.option("--job", "name", metavar="J", help="Only this job; it may be gone by now.")
@click.option(
    "--state",
    "states",
    multiple=True,
    callback=_known,
    metavar="S",
    help="Only this state. May be repeated.",
)
@click.option(
    "-n",
    "--number",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many runs at most.",
)
@as_json
@click.pass_obj
def command(
    session: Session, name: str | None, states: tuple[str, ...], number: int, as_json: bool
) -> None:
    """Show the newest runs, newest first."""
    runtime = session.runtime()
    job = None if name is None else find_id(runtime, name)
    runs = runtime.history(job=job, states=states or None, limit=number)
    if as_json:
        print_json({"runs": [run_shape(run) for run in runs]})
    elif runs:
        show_runs(runs, now())
    else:
        say("no runs of this kind yet" if job or states else "no runs yet")


def find_id(runtime: Runtime, name: str) -> str:
    """Return the id of a job that is installed or was. Raises UsageError."""
    known = runtime.known_ids()
    if name in known:
        return name
    gone = [id_ for id_ in known if id_.partition(":")[2] == name]
    try:
        return runtime.find(name).id
    except UnknownJobError:
        if len(gone) == 1:
            return gone[0]
        names = {*known, *(id_.partition(":")[2] for id_ in known)}
        raise UsageError(
            f"no job {name!r} is installed or in the history; {near(name, names)}"
        ) from None
