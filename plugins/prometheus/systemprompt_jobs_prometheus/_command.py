"""`systemprompt infra jobs prometheus FILE`: where the files that come along are found."""

from __future__ import annotations

from importlib.resources import files

import click

FILES = ("alerts.yaml", "dashboard.json")


@click.command()
@click.argument("file", type=click.Choice(FILES))
def prometheus(file: str) -> None:
    """Print alert rules for Prometheus, or a dashboard for Grafana."""
    click.echo(files(__package__).joinpath(file).read_text("utf-8"), nl=False)
