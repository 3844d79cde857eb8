"""A group that lists its commands without loading them."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.metadata import EntryPoint


class LazyGroup(click.Group):
    """A group whose commands load when they are used, and that names near ones.

    `lazy` maps a command to its module in this package, which holds it as `command`, and its
    summary; `plugins` is the entry-point group of commands that other distributions bring.
    Built-in names win; a name that two distributions claim belongs to neither.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, tuple[str, str]] | None = None,
        plugins: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy or {}
        self._plugins = plugins

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *self._lazy, *self._brought()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, loaded; None where there is none of this name."""
        if cmd_name in self._lazy:
            module = import_module(f"{__package__}.{self._lazy[cmd_name][0]}")
            command: click.Command = module.command
            return command
        if own := super().get_command(ctx, cmd_name):
            return own
        brought = self._brought().get(cmd_name)
        return _load(brought) if brought else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begins with; name near ones where there is none."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"there is no command {name!r}; {near(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the built-in commands, then those of plugins and who brings them."""
        names = sorted({*super().list_commands(ctx), *self._lazy})
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summary(ctx, name)) for name in names])
        if brought := self._brought():
            with formatter.section("Commands of plugins"):
                formatter.write_dl(
                    [(n, f"from {_owners(points)}") for n, points in sorted(brought.items())]
                )

    def _summary(self, ctx: click.Context, name: str) -> str:
        if name in self._lazy:
            return self._lazy[name][1]
        command = super().get_command(ctx, name)
        return command.get_short_help_str(limit=80) if command else ""

    def _brought(self) -> dict[str, list[EntryPoint]]:
        if not self._plugins:
            return {}
        from importlib.metadata import entry_points

        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self._plugins):
            if point.name not in self._lazy:
                found.setdefault(point.name, []).append(point)
        return found


def near(name: str, known: Iterable[str]) -> str:
    """Return what else may have been meant by `name`."""
    known = sorted(known)
    if close := difflib.get_close_matches(name, known, 3):
        return f"did you mean {' or '.join(close)}?"
    return f"there is {', '.join(known)}" if known else "there is none"


def _owners(points: Iterable[EntryPoint]) -> str:
    return ", ".join(point.dist.name if point.dist else point.value for point in points)


def _load(points: list[EntryPoint]) -> click.Command:
    name, owners = points[0].name, _owners(points)
    if len(points) > 1:
        raise click.ClickException(f"the command {name!r} is claimed by {owners}: remove one")
    try:
        command = points[0].load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        raise click.ClickException(
            f"the command {name!r} from {owners} cannot be loaded: {reason}"
        ) from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"{points[0].value} from {owners} is no click command")
    return command
