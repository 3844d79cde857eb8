"""`plugins`: where jobs come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._options import as_json
from ._problems import show_degraded
from ._shapes import print_json
from ._table import Cell, Column, show_table
from ._text import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.model import Problem

    from ._session import Session

_COLUMNS = (
    Column("PLUGIN", "wrap"),
    Column("DISTRIBUTION", "wrap"),
    Column("VERSION", "wrap"),
    Column("SOURCE"),
    Column("JOBS"),
    Column("STATE"),
)
_STYLES = {"ok": "green", "degraded": "bold red", "blocked": "dim"}


@click.command("plugins")
@as_json
@click.pass_obj
def command(session: Session, as_json: bool) -> None:
    """Show where jobs come from, and which plugins are broken."""
    runtime = session.runtime()
    plugins = list(_plugins(runtime))
    if as_json:
        print_json({"plugins": plugins})
        return
    if not plugins:
        say("no plugins yet: pip install one, or name a file under local_plugins")
    show_table(_COLUMNS, [_row(plugin) for plugin in plugins])
    show_degraded(runtime.degraded)


def _row(plugin: Mapping[str, Any]) -> tuple[Cell | str, ...]:
    state = plugin["state"]
    return (
        plugin["name"],
        plugin["distribution"] or "-",
        plugin["version"] or "-",
        plugin["source"] or "-",
        str(plugin["jobs"]),
        Cell(_state_words(plugin), _STYLES[state]),
    )


def _state_words(plugin: Mapping[str, Any]) -> str:
    ill, state = plugin["degraded_jobs"], plugin["state"]
    return f"{ill} of {plugin['jobs']} degraded" if ill else str(state)


def _plugins(runtime: Runtime) -> Iterator[dict[str, Any]]:
    """Yield each plugin as JSON has it: the loaded and the broken ones, then those kept out."""
    collection = runtime.collection
    problems = {problem.culprit: problem for problem in runtime.degraded}
    for extension in collection.extensions:
        own = [job.id for job in collection.jobs if job.extension is extension]
        ill = [problems.pop(key) for key in (extension.name, *own) if key in problems]
        ill_jobs = [problem for problem in ill if problem.culprit in own]
        yield {
            "name": extension.name,
            "distribution": extension.distribution,
            "version": extension.version,
            "source": extension.source,
            "module": extension.module,
            "jobs": len(own),
            "degraded_jobs": len(ill_jobs),
            "state": "degraded" if ill else "ok",
            "reason": _reason(ill),
        }
    for problem in problems.values():
        yield _unloaded(problem.culprit, "degraded", _reason([problem]))
    for name in collection.blocked:
        yield _unloaded(name, "blocked", "")


def _unloaded(name: str, state: str, reason: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("distribution", "version", "source", "module"), "")
    return {
        "name": name,
        **nothing,
        "jobs": 0,
        "degraded_jobs": 0,
        "state": state,
        "reason": reason,
    }


def _reason(problems: list[Problem]) -> str:
    return "; ".join(map(str, problems))
