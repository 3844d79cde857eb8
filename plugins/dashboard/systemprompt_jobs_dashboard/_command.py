"""`dashboard`: the pages of a project, served until a signal ends them."""

from __future__ import annotations

import ipaddress
import secrets
from typing import TYPE_CHECKING, Any

import click

from systemprompt_jobs.errors import UsageError

from ._access import LOOPBACK, Access, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from systemprompt_jobs import Runtime

    class _Session(Protocol):
        def runtime_at_work(self) -> Runtime: ...
        def log(self, manner: str) -> None: ...


VARIABLE = "SYSTEMPROMPT_JOBS_DASHBOARD_TOKEN"
VIEW_VARIABLE = "SYSTEMPROMPT_JOBS_DASHBOARD_VIEW_TOKEN"
_SETTINGS = ("token", "view_token", "user_header", "allow_hosts")
_SHORTEST = 16
_GRACE_S = 2


@click.command("dashboard")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Where to listen. Beyond this machine it takes a token or --user-header.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True,
              metavar="N", help="Which port; 0 takes a free one.")  # fmt: skip
@click.option("--token", envvar=VARIABLE, show_envvar=True, metavar="TEXT",
              help="With it people log in who may act. Better not written here: others see it.")  # fmt: skip
@click.option("--view-token", envvar=VIEW_VARIABLE, show_envvar=True, metavar="TEXT",
              help="With it people log in who may only look.")  # fmt: skip
@click.option("--user-header", metavar="NAME",
              help="A reverse proxy has authenticated the user it names in this request header.")  # fmt: skip
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME",
              help="Answer requests to this host name too. May be repeated.")  # fmt: skip
@click.pass_obj
def command(
    session: _Session, /, host: str, port: int, hosts: tuple[str, ...], **given: Any
) -> None:
    """Show jobs, runs and schedulers on pages of a web browser."""
    runtime = session.runtime_at_work()
    access, made = make_access(host, hosts, given, read_settings(runtime))
    session.log("run")
    serve(runtime, access, host, port, made)


def read_settings(runtime: Runtime) -> dict[str, Any]:
    """Return the section `extensions.dashboard` of the configuration. Raises UsageError."""
    section = runtime.settings.extensions.get("dashboard", {})
    if unknown := sorted(section.keys() - set(_SETTINGS)):
        raise UsageError(
            f"extensions.dashboard.{unknown[0]} is no setting; there is {', '.join(_SETTINGS)}"
        )
    if not isinstance(section.get("allow_hosts", []), list):
        raise UsageError("extensions.dashboard.allow_hosts is no list: write [jobs.example.org]")
    return dict(section)


def make_access(
    host: str, hosts: tuple[str, ...], given: Mapping[str, str | None], settings: Mapping[str, Any]
) -> tuple[Access, bool]:
    """Return who may see and act, and whether the token was made up for this start.

    Raises UsageError for an address beyond this machine that nothing protects, and for a token
    that can be guessed.
    """
    values = {name: given.get(name) or str(settings.get(name) or "") for name in _SETTINGS[:3]}
    for name in ("token", "view_token"):
        if values[name] and len(values[name]) < _SHORTEST:
            raise UsageError(
                f"the {name} is shorter than {_SHORTEST} characters; take a random one"
            )
    local = is_loopback(host)
    if not local and not any(values.values()):
        raise UsageError(
            f"--host {host} lets other machines in: set {VARIABLE}, or --user-header if a "
            "reverse proxy authenticates its users"
        )
    made = local and not values["token"]
    if made:
        values["token"] = secrets.token_urlsafe(24)
    named = (*LOOPBACK, *_own_name(host), *hosts, *settings.get("allow_hosts", ()))
    return Access(**values, hosts=named, local_view=local), made


def _own_name(host: str) -> tuple[str, ...]:
    """Return the address as a name, unless it stands for all addresses."""
    try:
        return () if ipaddress.ip_address(host.strip("[]")).is_unspecified else (host,)
    except ValueError:
        return (host,)


def serve(runtime: Runtime, access: Access, host: str, port: int, made: bool) -> None:
    """Serve until TERM or Ctrl-C, and print where."""
    import signal
    import socket

    import uvicorn

    from ._app import create_app

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}") from None
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"dashboard: http://{shown}:{listener.getsockname()[1]}/")
    if made:
        click.echo(f"to act, log in with the token of this start: {access.token}")
    config = uvicorn.Config(
        create_app(runtime, access),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again at its end
        signal.signal(number, lambda *_: None)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])
