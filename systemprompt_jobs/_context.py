"""What a function gets to see of its run, and the databases and services behind it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError

from ._output import bound_logger
from .errors import RunCancelled, ServiceError
from .model import EMPTY, Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    import structlog
    import svcs

    from .interfaces import Voice

T = TypeVar("T")


class Resources:
    """The engines of `databases:` and the service registry, shared by all runs of a runtime."""

    def __init__(self, databases: Mapping[str, str], registry: svcs.Registry) -> None:
        self._urls = databases
        self._engines: dict[str, Engine] = {}
        self._lock = threading.Lock()
        self.registry = registry

    @property
    def names(self) -> Iterable[str]:
        """The names of `databases:`."""
        return self._urls

    def engine(self, name: str) -> Engine:
        """Return the one engine of database `name`, made when first asked for."""
        with self._lock:
            if name not in self._engines:
                self._engines[name] = self._create(name)
            return self._engines[name]

    def _create(self, name: str) -> Engine:
        if name not in self._urls:
            raise ServiceError(
                f"no database {name!r} is configured; {_known(self._urls)}: "
                f"add it under scheduler.databases, e.g. {name}: sqlite:///var/app.db"
            )
        try:
            return create_engine(self._urls[name])
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise ServiceError(f"database {name!r} cannot be used: {error}") from error

    def container(self) -> svcs.Container:
        """Return a container for one run, to be used as a context manager."""
        from ._services import RunServices

        return RunServices(self.registry)

    def close(self) -> None:
        """Give back every connection and close the services that live as long as the runtime."""
        self.registry.close()
        with self._lock:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()


def _known(names: Iterable[str]) -> str:
    return f"there is {', '.join(sorted(names))}" if names else "there is none"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """What a function sees of its run: its first argument, if it takes one.

    - `run`: the run, as recorded when it started; `tick`: the instant it was due (aware UTC),
      None for start-up runs and those by hand, unless they were given one.
    - `parameters`: the checked values of the keyword-only arguments.
    - `enforce`: False is a dry run: destroy nothing, say what would be destroyed.
    - `config`: the extension's own section, `scheduler.extensions.<name>`.
    - `log`: a structlog logger bound to job, run, attempt and node; what it logs is kept.
    """

    run: Run
    parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    enforce: bool = False
    config: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    resources: Resources = field(repr=False)
    services: svcs.Container = field(repr=False)
    interrupted: threading.Event = field(default_factory=threading.Event, repr=False)
    said: Voice = field(repr=False)

    @property
    def tick(self) -> datetime | None:
        """The instant the run was due."""
        return self.run.tick

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        """A structlog logger bound to this run."""
        return bound_logger(self.said, self.run)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the job is, as often as you like: `done` of `total`, in its own units.

        It is written down once a second, for `status`, `run` and hooks to show. Any thread of
        the job may call.
        """
        self.said.progress(done, total, message)

    @property
    def cancelled(self) -> bool:
        """Whether the function should end: cancelled, over its timeout, or its node stops."""
        return self.interrupted.is_set()

    def check_cancelled(self) -> None:
        """Raise errors.RunCancelled if the function should end; else return at once."""
        if self.interrupted.is_set():
            raise RunCancelled(f"run {self.run.id} was told to end")

    def sleep(self, duration: float | timedelta) -> None:
        """Sleep for so many seconds, or raise errors.RunCancelled as soon as `cancelled`.

        It blocks its thread: an `async def` job awaits `asyncio.sleep`, which ends with it.
        """
        seconds = duration if isinstance(duration, int | float) else duration.total_seconds()
        self.interrupted.wait(max(0.0, seconds))
        self.check_cancelled()

    def db_pool(self, kind: type[T], name: str = "default") -> T:
        """Return the pooled `sqlalchemy.Engine` of `scheduler.databases.<name>`.

        All runs share one engine per name. Raises ServiceError if there is no such database or
        `kind` is not `Engine`.
        """
        if kind is not Engine:
            raise ServiceError(f"db_pool takes sqlalchemy.Engine, got {kind!r}")
        return self.resources.engine(name)  # type: ignore[return-value]

    def get(self, kind: type[T]) -> T:
        """Return the service of this type, as a plugin's `register_services` hook made it.

        One instance per run, closed when the run ends. Raises ServiceError if nobody registered
        the type.
        """
        import svcs

        try:
            return self.services.get(kind)
        except svcs.exceptions.ServiceNotFoundError:
            raise ServiceError(
                f"no service {kind.__module__}.{kind.__qualname__} is registered: "
                "a plugin registers it in its register_services hook"
            ) from None
