"""`config`: the configuration in force, and the JSON Schema of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._lazy import LazyGroup
from ._options import as_json
from ._shapes import print_json, source_shape, values_shape
from ._table import Column, show_table
from ._text import say

if TYPE_CHECKING:
    from systemprompt_jobs import Runtime

    from ._session import Session

_COLUMNS = (Column("SETTING", "id"), Column("VALUE", "wrap"), Column("SET BY", "wrap"))


@click.group("config", cls=LazyGroup)
def command() -> None:
    """Show the configuration in force, or the schema of its files."""


@command.command("show")
@as_json
@click.pass_obj
def show(session: Session, as_json: bool) -> None:
    """Show every setting and every job's values, and which file and line set each."""
    runtime = session.runtime()
    if as_json:
        print_json(_answer(runtime))
        return
    rows = _rows(runtime)  # raises what is wrong with the files
    say(f"root  {runtime.project.root}", "")
    show_table(_COLUMNS, rows)


def _answer(runtime: Runtime) -> dict[str, Any]:
    jobs = {plan.id: values_shape(plan) for plan in runtime.plans}
    settings = {name: source_shape(s[-1], name) for name, s in runtime.settings.sources.items()}
    return {"root": str(runtime.project.root), "settings": settings, "jobs": jobs}


def _rows(runtime: Runtime) -> list[tuple[str, str, str]]:
    settings = runtime.settings.sources
    rows = [(name, said[-1].text(name), said[-1].by) for name, said in settings.items()]
    for plan in runtime.plans:
        for name, said in plan.sources.items():
            of_all = said[-1] in settings.get(name, ())
            if said[-1].layer not in {"default", "job"} and not of_all:
                rows.append((f"{plan.id} {name}", said[-1].text(name), said[-1].by))
    return rows


@command.command("schema")
@click.option("--file", "file", type=click.Choice(["config.yaml", "profile.yaml"]),
              default="config.yaml", show_default=True, help="Which of the two files.")  # fmt: skip
@click.pass_obj
def schema(session: Session, file: str) -> None:
    """Print the JSON Schema of a file, so that editors complete and check it."""
    answer: dict[str, Any] = session.runtime().json_schema(shared=file == "profile.yaml")
    print_json(answer)
