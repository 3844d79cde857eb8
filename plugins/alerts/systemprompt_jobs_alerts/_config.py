"""The section `scheduler.extensions.alerts`, checked."""

from __future__ import annotations

import socket
import string
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from systemprompt_jobs import Duration
from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.model import Problem

from ._alert import FIELDS, Alert, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from systemprompt_jobs.model import Collection

SECTION = "scheduler.extensions.alerts"

_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def _template(value: Any) -> Any:
    """Return a body; raise ValueError if a text in it names what there is not."""
    if isinstance(value, dict):
        return {key: _template(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_template(item) for item in value]
    if isinstance(value, str):
        for _, name, spec, conversion in string.Formatter().parse(value):
            if name is not None and (name not in FIELDS or spec or conversion):
                known = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise ValueError(f"{{{name}}} cannot be filled in; there is {known}")
    return value


def _printable(text: str) -> str:
    if not text.isprintable() or not text.isascii():
        raise ValueError("must be plain ASCII text in one line")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(_printable(text))
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text has a part of the address
        whole = False
    if not whole or parts.scheme not in {"http", "https"} or " " in text:
        raise ValueError("is no address that begins with http:// or https://")
    return text


Positive = Annotated[Duration, Field(gt=timedelta(0), le=timedelta(days=3650))]
Line = Annotated[str, Field(min_length=1), AfterValidator(_printable)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Webhook(_Section):
    """A POST of JSON to an address, or of text where `body` is a text."""

    type: Literal["webhook"]
    url: Annotated[str, AfterValidator(_url), Field(repr=False)]
    headers: dict[Line, Line] = Field({}, repr=False)
    body: Annotated[Any, AfterValidator(_template)] = None
    timeout: Annotated[Positive, Field(le=timedelta(minutes=1))] = timedelta(seconds=10)


class Mail(_Section):
    """A mail by way of an SMTP server."""

    type: Literal["smtp"]
    host: Line
    security: Literal["starttls", "tls", "none"] = "starttls"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    username: str = Field("", repr=False)
    password: str = Field("", repr=False)
    sender: Line
    to: list[Line] = Field(min_length=1)
    timeout: Annotated[Positive, Field(le=timedelta(minutes=1))] = timedelta(seconds=10)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port or _PORTS[self.security]

    @model_validator(mode="after")
    def _login(self) -> Self:
        if bool(self.username) != bool(self.password):
            raise ValueError("username and password go together: give both or neither")
        if self.password and self.security == "none":
            raise ValueError("a password needs `security: starttls` or `tls`")
        return self


class Route(_Section):
    """Which alerts go to which channels: all that is said must fit."""

    channels: list[str] = Field(min_length=1)
    jobs: list[str] = Field(["*"], min_length=1)
    tags: list[str] = []
    kinds: list[Kind] = Field(list(Kind), min_length=1)

    def takes(self, alert: Alert, tags: frozenset[str]) -> bool:
        """Return whether the alert goes this way; `tags` are those of its job."""
        return (
            alert.kind in self.kinds
            and any(fnmatchcase(alert.job, pattern) for pattern in self.jobs)
            and (not self.tags or not tags.isdisjoint(self.tags))
        )


class Rate(_Section):
    """At most so many messages in so long, for each channel."""

    messages: Annotated[int, Field(ge=1)] = 20
    per: Positive = timedelta(minutes=10)


class Retry(_Section):
    """How often a message is tried, and how long after the first failure; then it doubles."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 6
    delay: Positive = timedelta(seconds=5)


class Config(_Section):
    """The whole section. Without `channels` nothing is watched."""

    name: str = Field(default_factory=socket.gethostname, min_length=1)
    channels: dict[str, Annotated[Webhook | Mail, Field(discriminator="type")]] = {}
    routes: list[Route] = []
    no_success: dict[str, Annotated[Duration, Field(ge=timedelta(seconds=1))]] = {}
    repeat: Annotated[Duration, Field(le=timedelta(days=3650))] = timedelta(days=1)
    database_after: Annotated[Duration, Field(le=timedelta(days=1))] = timedelta(minutes=2)
    rate: Rate = Rate()
    retry: Retry = Retry()
    queue: Annotated[int, Field(ge=1, le=100_000)] = 1_000

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("must be text in one line")
        return name

    def route(self, alert: Alert, tags: frozenset[str]) -> list[str]:
        """Return the names of the channels that an alert goes to."""
        if not self.routes:
            return list(self.channels)
        chosen = [name for r in self.routes if r.takes(alert, tags) for name in r.channels]
        return list(dict.fromkeys(chosen))

    def deadline(self, job: str) -> timedelta | None:
        """Return how long the job may go without a success: its own entry, else the first fit."""
        fits = (age for pattern, age in self.no_success.items() if fnmatchcase(job, pattern))
        return self.no_success.get(job) or next(fits, None)


def read(section: Mapping[str, Any], collection: Collection | None = None) -> Config:
    """Return the section as a `Config`; jobs are looked for in `collection`, if given.

    Raises ConfigurationError with all mistakes, each by its path and without the value, which
    may be a secret.
    """
    try:
        config = Config.model_validate(dict(section))
    except ValidationError as error:
        raise ConfigurationError([_problem(detail) for detail in error.errors()]) from None
    problems = [*_channels(config), *(_jobs(config, collection) if collection else ())]
    if problems:
        raise ConfigurationError(problems)
    return config


def _problem(detail: Mapping[str, Any]) -> Problem:
    loc, kind = detail["loc"], detail["type"]
    remedy = f"known are {', '.join(_model(loc).model_fields)}" if kind == "extra_forbidden" else ""
    if loc[:1] == ("channels",) and len(loc) > 2:  # noqa: PLR2004
        loc = (*loc[:2], *loc[3:])  # pydantic names the channel's type there
    words = {
        "extra_forbidden": "unknown key",
        "missing": "is missing",
        "too_short": "must not be empty",
        "string_too_short": "must not be empty",
        "union_tag_not_found": "has no type: write `type: webhook` or `type: smtp`",
        "union_tag_invalid": "has an unknown type: there is webhook and smtp",
    }
    reason = str(detail["ctx"]["error"]) if kind == "value_error" else detail["msg"]
    reason = words.get(kind, reason[:1].lower() + reason[1:])
    return Problem(_path(*loc), reason, remedy=remedy)


def _model(loc: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model that has no such key."""
    if loc[0] == "channels":
        return Webhook if loc[2] == "webhook" else Mail
    models: dict[str, type[BaseModel]] = {"routes": Route, "rate": Rate, "retry": Retry}
    return models.get(str(loc[0]), Config)


def _path(*loc: str | int) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    return SECTION + "".join(parts)


def _channels(config: Config) -> Iterator[Problem]:
    known = ", ".join(config.channels) or "none yet"
    if not config.channels and (config.routes or config.no_success):
        yield Problem(_path("channels"), "is missing: nobody would be told")
    for index, route in enumerate(config.routes):
        for at, name in enumerate(route.channels):
            if name not in config.channels:
                path = _path("routes", index, "channels", at)
                yield Problem(path, f"there is no channel {name!r}", remedy=f"there is {known}")


def _jobs(config: Config, collection: Collection) -> Iterator[Problem]:
    """Yield a problem for each pattern that fits no job: a typing error would silence it."""
    ids = [job.id for job in collection.jobs]
    kept_out = {*collection.blocked, *collection.degraded}
    patterns = {_path("no_success", pattern): pattern for pattern in config.no_success}
    for index, route in enumerate(config.routes):
        patterns |= {_path("routes", index, "jobs", at): p for at, p in enumerate(route.jobs)}
    for path, pattern in patterns.items():
        away = pattern.partition(":")[0] in kept_out or pattern in kept_out
        if pattern != "*" and not away and not any(fnmatchcase(id_, pattern) for id_ in ids):
            remedy = "write extension:job, or a pattern such as billing:*"
            yield Problem(path, f"{pattern!r} fits no job", remedy=remedy)
