"""What the global options say, and the runtime they make."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from systemprompt_jobs.errors import UsageError

from ._text import complain

if TYPE_CHECKING:
    from typing import TextIO

    from systemprompt_jobs import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The global options. Commands, also those of plugins, get it from `click.pass_obj`."""

    root: str | None = None
    plugins: tuple[str, ...] = ()
    no_plugins: tuple[str, ...] = ()
    log_format: str = "auto"
    trace_hooks: bool = False
    strict: bool = False

    def runtime(self, *own: object) -> Runtime:
        """Return the runtime of the project, its plugins loaded; it is stopped with the command.

        `own` are plugins of the command itself.
        What plugins print while they load goes to standard error: standard output is for
        answers. Raises UsageError and ConfigurationError.
        """
        self.log("quiet")
        from systemprompt_jobs import Runtime

        with redirect_stdout(sys.stderr):
            runtime = Runtime(
                self.root,
                plugins=[*self.plugins, *own],
                no_plugins=self.no_plugins,
                trace=self.trace_hooks,
            )
        click.get_current_context().call_on_close(runtime.stop)
        return runtime

    def runtime_at_work(self, *own: object) -> Runtime:
        """Return a runtime that may run jobs: of a project, and with --strict a sound one."""
        runtime = self.runtime(*own)
        if not runtime.project.found:
            raise UsageError(
                f"no project in {runtime.project.root}: it has neither "
                "services/scheduler/config.yaml nor profile.yaml; "
                "`systemprompt infra jobs init DIR` makes one, --root names one"
            )
        _ = runtime.plans  # raises what is wrong with the configuration
        if self.strict and runtime.degraded:
            complain(*map(str, runtime.degraded))
            raise click.ClickException("something is degraded, and --strict refuses to start")
        return runtime

    def log(self, manner: str) -> None:
        """Log as this kind of command does, see `_logging.MANNERS`: to standard error but `serve`."""
        from ._logging import CurrentStderr, configure

        stream: Any = sys.stdout if manner in {"serve", "dev"} else CurrentStderr()
        configure(stream, manner, human=self.logs_for_people(stream))

    def logs_for_people(self, stream: TextIO) -> bool:
        """Return whether the log on `stream` is for people."""
        if self.log_format == "auto":
            return stream.isatty()
        return self.log_format == "human"
