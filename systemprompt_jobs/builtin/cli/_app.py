"""The groups, the global options, and where each command is."""

from __future__ import annotations

from typing import Any

import click

from systemprompt_jobs import __version__

from ._lazy import LazyGroup
from ._session import Session

COMMANDS = {
    "audit": ("_audit", "Show who did what by hand, newest first."),
    "backfill": (
        "_backfill",
        "Run ticks of the past that were missed, or of which nothing is recorded.",
    ),
    "cancel": ("_cancel", "End runs early, wherever they are."),
    "check": ("_check", "Say everything that is wrong with plugins and configuration."),
    "config": ("_config", "Show the configuration in force, or the schema of its files."),
    "db": ("_db", "See and upgrade the database's schema, export and import all it holds."),
    "explain": ("_explain", "Say why a job will run or not, and who set each of its values."),
    "doctor": ("_doctor", "Say whether all that a scheduler needs is there and well."),
    "history": ("_history", "Show the newest runs, newest first."),
    "init": ("_init", "Make a project in DIR that works at once."),
    "list": ("_list", "Show every job: its schedule, its next tick, how it went last."),
    "logs": ("_logs", "Show what a run has logged, attempt by attempt."),
    "new-plugin": ("_new_plugin", "Make the package of a plugin: a job, its tests, README and CI."),
    "next": ("_next", "Show upcoming ticks, and what a schedule means."),
    "pause": ("_pause", "Pause jobs: their ticks are skipped until the end or `resume`."),
    "nodes": ("_nodes", "Show the live schedulers and workers, and those that went lately."),
    "plugins": ("_plugins", "Show where jobs come from, and which plugins are broken."),
    "reload": ("_reload", "Have every scheduler read its configuration again, without a restart."),
    "reset-clock": ("_reset_clock", "Let jobs go on that wait because a clock was wrong."),
    "resume": ("_resume", "End the pauses of jobs; what was due meanwhile is not made up."),
    "prune": ("_prune", "Forget old history, as schedulers do by themselves about once an hour."),
    "retry": ("_retry", "Run a run that has ended once more, with the same parameters and tick."),
    "run": ("_run", "Run jobs here and now, and wait until they have ended."),
    "serve": ("_serve", "Run the scheduler until it is told to stop."),
    "show": ("_status", "Show the scheduler at a glance, or all about one job or run."),
    "stats": (
        "_stats",
        "Show how often jobs ran, succeeded, and how long and how late they were.",
    ),
    "status": ("_status", "Show the scheduler at a glance, or all about one job or run."),
}
"""Command → its module and its summary, which `--help` shows without loading it."""


class _Root(LazyGroup):
    def invoke(self, ctx: click.Context) -> int:
        """Ignore what a command returns: only `ctx.exit()` and errors set the exit code."""
        super().invoke(ctx)
        return 0


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root", metavar="DIR", help="The project's folder; else it is found from here upwards."
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="NAME",
    help="Load this plugin or module too. May be repeated.",
)
@click.option(
    "--no-plugin",
    "no_plugins",
    multiple=True,
    metavar="NAME",
    help="Do not load this plugin. May be repeated.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "human", "json"]),
    default="auto",
    show_default=True,
    help="Log for people or as JSON lines; auto looks whether a terminal reads.",
)
@click.option("--trace-hooks", is_flag=True, help="Print every hook call to standard error.")
@click.option("--strict", is_flag=True, help="Refuse to serve or run while anything is degraded.")
@click.version_option(__version__, prog_name="systemprompt-jobs", message="%(prog)s %(version)s")
@click.pass_context
def systemprompt(ctx: click.Context, /, **options: Any) -> None:
    """Background jobs and schedules as plugins."""
    ctx.obj = Session(**options)


@systemprompt.group(cls=LazyGroup)
def infra() -> None:
    """Look after the parts that work in the background."""


@infra.group(cls=LazyGroup, lazy=COMMANDS, plugins="systemprompt_jobs.commands")
def jobs() -> None:
    """See, check and run scheduled jobs."""
