"""`dashboard`: the pages of a project, served until a signal ends them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click

from ._serve import TOKEN_VARIABLE, VIEW_VARIABLE, open_pages, read_settings

if TYPE_CHECKING:
    from typing import Protocol

    from systemprompt_jobs import Runtime

    class _Session(Protocol):
        def runtime_at_work(self) -> Runtime: ...
        def log(self, manner: str) -> None: ...


@click.command("dashboard")
@click.option("--host", metavar="ADDRESS",
              help="Where to listen, 127.0.0.1 unless given. Beyond this machine it takes a token "
                   "or --user-header.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), metavar="N",
              help="Which port, 8787 unless given; 0 takes a free one.")  # fmt: skip
@click.option("--token", envvar=TOKEN_VARIABLE, show_envvar=True, metavar="TEXT",
              help="With it people log in who may act. Better not written here: others see it.")  # fmt: skip
@click.option("--view-token", envvar=VIEW_VARIABLE, show_envvar=True, metavar="TEXT",
              help="With it people log in who may only look.")  # fmt: skip
@click.option("--user-header", metavar="NAME",
              help="A reverse proxy has authenticated the user it names in this request header.")  # fmt: skip
@click.option("--allow-host", "allow_hosts", multiple=True, metavar="NAME",
              help="Answer requests to this host name too. May be repeated.")  # fmt: skip
@click.pass_obj
def command(session: _Session, /, **given: Any) -> None:
    """Show jobs, runs and schedulers on pages of a web browser."""
    runtime = session.runtime_at_work()
    said = {name: value for name, value in given.items() if value not in (None, ())}
    pages = open_pages(runtime, read_settings(runtime) | said)
    session.log("run")
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again at its end
        signal.signal(number, lambda *_: pages.end())
    click.echo(f"dashboard: {pages.address}")
    if pages.token:
        click.echo(f"to act, log in with the token of this start: {pages.token}")
    pages.serve()
