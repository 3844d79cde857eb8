"""`history`: the newest runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from systemprompt_jobs.errors import UnknownJobError, UsageError

from . import _complete
from ._lazy import near
from ._options import as_json
from ._plans import tagged
from ._runs import STATES, show_runs
from ._shapes import print_json, run_shape
from ._text import say
from ._times import moment, now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from systemprompt_jobs import Runtime

    from ._session import Session


def _known(
    _ctx: click.Context, _param: click.Parameter, states: tuple[str, ...]
) -> tuple[str, ...]:
    try:
        return known_states(states)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None


def known_states(states: Sequence[str]) -> tuple[str, ...]:
    """Return the names of states as they are. Raises UsageError for what is none."""
    for state in states:
        if state not in STATES:
            raise UsageError(f"there is no state {state!r}; {near(state, STATES)}")
    return tuple(states)


@click.command("history")
@click.option(
    "--job",
    "name",
    metavar="J",
    help="Only this job; it may be gone by now.",
    shell_complete=_complete.jobs,
)
@click.option(
    "--state",
    "states",
    multiple=True,
    callback=_known,
    metavar="S",
    help="Only this state. May be repeated.",
    shell_complete=_complete.states,
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
@click.option("--tag", metavar="T", help="Only jobs with this tag.", shell_complete=_complete.tags)
@click.option("--since", metavar="T", help="Only from this time on: 2026-03-29T01:00, or 2h for "
              "two hours ago.")  # fmt: skip
@click.option("--until", metavar="T", help="Only before this time.")
@click.option("--node", metavar="N", help="Only of nodes whose id begins so, e.g. a host's.")
@click.option("--grep", "text", metavar="TEXT", help="Only with this in the error or message.")
@click.option("--versions", is_flag=True, help="Show which version of its plugin each run was of, "
              "not what it said.")  # fmt: skip
@click.option("--before", type=int, metavar="RUN", help="Only runs older than this one.")
@as_json
@click.pass_obj
def command(
    session: Session,
    /,
    name: str | None,
    states: tuple[str, ...],
    number: int,
    versions: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Show the newest runs, newest first."""
    runtime = session.runtime()
    job = None if name is None else find_id(runtime, name)
    wanted = _wanted(runtime, filters)
    runs = runtime.history(job=job, states=states or None, limit=number, **wanted)
    if as_json:
        print_json({"runs": [run_shape(run) for run in runs]})
    elif runs:
        show_runs(runs, now(), versions=versions)
        if len(runs) == number:
            say(f"older ones: --before {runs[-1].id}")
    else:
        say("no runs of this kind yet" if job or states or wanted else "no runs yet")


def _wanted(runtime: Runtime, filters: dict[str, Any]) -> dict[str, Any]:
    """Return what `Runtime.history` takes of the options that were given."""
    wanted = {name: value for name, value in filters.items() if value is not None}
    if "tag" in wanted:
        tagged(runtime.plans, wanted["tag"])  # one that no job has is a slip
    for name in ("since", "until"):
        if name in wanted:
            wanted[name] = moment(f"--{name}", wanted[name])
    return wanted


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
