"""What the configuration says of an executor of kind `celery`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from systemprompt_jobs.secrets import anchored, masked, reveal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from systemprompt_jobs import Runtime

PRIORITIES = 9
"""What a queue that knows priorities is declared with: 0 to 9."""


@dataclass(frozen=True, slots=True)
class Line:
    """A queue at a broker, and how runs go through it.

    A worker runs `size` functions at once, by the executor that `worker` describes as
    `scheduler.executors` would, and holds at most `prefetch` messages whose functions have not
    begun. `window` is how many runs may wait for all workers. `options` are the transport's own.
    """

    broker: str
    queue: str = "systemprompt_jobs"
    priority: int | None = None
    size: int | None = None
    window: int = 1000
    deadline: timedelta = timedelta(minutes=5)
    prefetch: int | None = None
    worker: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The broker without its password."""
        return str(masked(self.broker))

    @property
    def executor(self) -> Mapping[str, Any]:
        """The settings of the executor that a worker runs functions by."""
        size = {} if self.size is None else {"size": self.size}
        return {"kind": "processes", **size, **self.worker}


def read_line(settings: Mapping[str, Any], root: str, environ: Mapping[str, str]) -> Line:
    """Return the line of an executor's settings. Raises ValueError."""
    fields = Line.__dataclass_fields__
    for key in settings:
        if key not in fields:
            near = difflib.get_close_matches(key, [*fields, "worker"], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}"
            raise ValueError(f"unknown key {key!r} ({hint})")
    values = dict(settings)
    broker = reveal(anchored(values.get("broker", ""), Path(root)), environ)
    if not isinstance(broker, str) or "://" not in broker:
        raise ValueError(f"broker: {masked(broker)!r} is no URL such as amqp://user@host/vhost")
    values["broker"] = broker
    if "deadline" in values:
        values["deadline"] = _duration(values["deadline"])
    limits = {"size": (1, None), "window": (1, None), "prefetch": (1, 65_535), "priority": (0, 9)}
    for key, (least, most) in limits.items():
        _check_number(key, values.get(key, least), least, most)
    _check_mapping("options", values.get("options", {}))
    _check_mapping("worker", worker := values.get("worker", {}))
    if worker.get("kind") == "celery":
        raise ValueError("worker: runs end somewhere: its kind is e.g. processes or threads")
    return Line(**values)


def lines_of(runtime: Runtime, environ: Mapping[str, str]) -> dict[str, Line]:
    """Return the lines that a project's configuration has, by the names of their pools.

    Raises ValueError, which names the pool.
    """
    found = {}
    for name, settings in runtime.settings.executors.items():
        if settings["kind"] == "celery":
            own = {key: value for key, value in settings.items() if key != "kind"}
            try:
                found[name] = read_line(own, str(runtime.project.root), environ)
            except ValueError as error:
                raise ValueError(f"scheduler.executors.{name}: {error}") from None
    return found


def _duration(value: object) -> timedelta:
    from pydantic import TypeAdapter, ValidationError

    from systemprompt_jobs import Duration

    try:
        duration: timedelta = TypeAdapter(Duration).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"deadline: {error.errors()[0]['msg'].partition(', ')[2]}") from None
    if duration < timedelta(seconds=1):
        raise ValueError(f"deadline: {value} is too short: a message needs at least 1s")
    return duration


def _check_number(key: str, value: object, least: int, most: int | None) -> None:
    if type(value) is not int or value < least or (most is not None and value > most):
        span = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise ValueError(f"{key}: {value!r} is no whole number {span}")


def _check_mapping(key: str, value: object) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: {value!r} is no mapping")  # noqa: TRY004  # the hook's word
