"""What a question of the API takes, read from its address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from systemprompt_jobs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.datastructures import QueryParams

LARGEST = 2**62
_DIGITS = 19
_FLAGS = {"": True, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query: a text, a whole number if it has a least one, or a flag."""

    name: str
    about: str
    many: bool = False
    flag: bool = False
    least: int | None = None
    most: int = LARGEST
    default: int | None = None


class Asked:
    """The parameters that were given. Raises UsageError for those that the question has not."""

    def __init__(
        self, known: Sequence[Parameter], query: QueryParams, path: Mapping[str, Any]
    ) -> None:
        self._known = {parameter.name: parameter for parameter in known}
        self._query = query
        self._path = path
        for name in query:
            if name not in self._known:
                known_names = ", ".join(self._known) or "none"
                raise UsageError(f"there is no parameter {name!r} here; there is {known_names}")
            if not self._known[name].many and len(query.getlist(name)) > 1:
                raise UsageError(f"{name} is given twice: once is enough")

    def path(self, name: str) -> str:
        """Return a text of the path."""
        return str(self._path[name])

    def id(self, name: str) -> int:
        """Return a number of the path."""
        return int(self._path[name])

    def text(self, name: str) -> str | None:
        """Return a text, None for one that was not given."""
        return self._query.get(name)

    def texts(self, name: str) -> list[str]:
        """Return every text of this name."""
        return self._query.getlist(name)

    def flag(self, name: str) -> bool:
        """Return whether a flag is set: by its name alone, or as `true`."""
        text = self._query.get(name, "false")
        if text not in _FLAGS:
            raise UsageError(f"{name}={text}: write true or false")
        return _FLAGS[text]

    def number(self, name: str) -> int:
        """Return a number that has a default."""
        return self.number_or_none(name) or self._known[name].default or 0

    def number_or_none(self, name: str) -> int | None:
        """Return a number, None for one that was not given."""
        text, wanted = self._query.get(name), self._known[name]
        if text is None:
            return None
        least = wanted.least or 0
        plain = text.isascii() and text.isdigit() and len(text) <= _DIGITS
        if not (plain and least <= int(text) <= wanted.most):
            raise UsageError(f"{name}={text}: write a whole number from {least} to {wanted.most}")
        return int(text)
