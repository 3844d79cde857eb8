"""`alerts test`: one message through each channel."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from systemprompt_jobs.errors import UsageError

from ._alert import Alert, named
from ._channels import NotSentError, open_channel
from ._config import SECTION, Config, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from systemprompt_jobs import Runtime


@click.group()
def alerts() -> None:
    """Try the channels of alerts."""


@alerts.command()
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def test(ctx: click.Context, channels: tuple[str, ...], as_json: bool) -> None:
    """Send a test message and say how it went.

    It goes through each channel, or through those named, once.
    Exit code 1: it could not be sent through one of them.
    """
    config = _config(ctx.obj.runtime())
    results = [_try(config, name, as_json=as_json) for name in _chosen(config, channels)]
    if as_json:
        click.echo(json.dumps({"channels": results}, indent=2))
    if not all(result["ok"] for result in results):
        ctx.exit(1)


def _config(runtime: Runtime) -> Config:
    _ = runtime.plans  # raises what is wrong with the configuration
    return read(runtime.settings.extensions.get("alerts", {}), runtime.collection)


def _chosen(config: Config, names: Iterable[str]) -> list[str]:
    known = ", ".join(config.channels)
    if not known:
        raise UsageError(f"no channel is configured: add one under {SECTION}.channels")
    for name in names:
        if name not in config.channels:
            raise UsageError(f"there is no channel {name!r}; there is {known}")
    return list(dict.fromkeys(names)) or list(config.channels)


def _try(config: Config, name: str, *, as_json: bool) -> dict[str, Any]:
    kind = config.channels[name].type
    details = f"Sent by `alerts test` on {socket.gethostname()} to the channel {name}."
    alert = Alert("test", "test: alerts arrive here", datetime.now(UTC), details=details)
    began = time.monotonic()
    try:
        open_channel(config.channels[name]).send(named(alert, config.name))
    except NotSentError as error:
        reason = str(error)
    else:
        reason = ""
    took = time.monotonic() - began
    if not as_json:
        words = f"not sent: {reason}" if reason else f"sent in {took:.1f} s"
        click.echo(f"{name} ({kind}): {words}")
    return {"channel": name, "type": kind, "ok": not reason, "reason": reason, "seconds": took}
