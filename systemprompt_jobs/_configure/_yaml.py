"""Read YAML safely, keeping the line of every value.

Only plain values come out: texts, numbers, booleans, lists, and mappings with text keys. Dates
and `12:30:00` stay texts; `yes`, `no`, `on` and `off` are booleans as in YAML 1.1; numbers are
read as in YAML 1.2, so `010` and `1_000` stay texts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from .._parameters import near, shown
from ..model import EMPTY, Place, Problem
from ._compose import Branch, Node, RefusedError, Scalar, compose

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Loc: TypeAlias = tuple[str | int, ...]

SECTION = "scheduler"
MAX_BYTES = 1 << 20

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS = ("", "~", "null", "Null", "NULL")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,300})")
_HEX_OR_OCTAL = re.compile(r"0x[0-9a-fA-F]{1,100}|0o[0-7]{1,100}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """The plain data of a file's `scheduler:` section and the place of each value in it.

    `places` is keyed by paths within the section, e.g. `("jobs", 2, "schedule")`.
    """

    data: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    places: Mapping[Loc, Place] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def place(self, loc: Loc) -> Place:
        """Return the place of the value at `loc`, or of the nearest one around it."""
        while loc and loc not in self.places:
            loc = loc[:-1]
        return self.places.get(loc, Place())


def read(path: Path, *, shared: bool) -> Document:
    """Read the `scheduler:` section of a file.

    A `shared` file has sections of others too, which are not looked at. Never raises for what
    it finds: that is in the document's problems.
    """
    try:
        return _document(path, compose(_text(path)), shared=shared)
    except RefusedError as refusal:
        place = Place(path, refusal.line)
        return Document(problems=(Problem(path.name, refusal.reason, place, refusal.remedy),))


def parse_value(text: str) -> Any:
    """Return what `text` says as a YAML value, or the text itself where it is no YAML."""
    try:
        reader = _Reader(None)
        value = reader.value(compose(text), (), 1)
    except RefusedError:
        return text
    return text if reader.problems and text not in _NULLS[1:] else value


def path_text(loc: Loc) -> str:
    """Return a path as messages show it, e.g. `scheduler.jobs[2].schedule`."""
    return SECTION + "".join(
        f"[{key}]" if isinstance(key, int) else f".{key_text(key)}" for key in loc
    )


def key_text(text: str) -> str:
    """Return a key as messages show it: unusual ones in quotes, long ones cut."""
    return text if re.fullmatch(r"[\w-]{1,60}", text) else shown(text)


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise RefusedError("is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RefusedError(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise RefusedError("is larger than 1 MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RefusedError("is not UTF-8", line, "save it with the encoding UTF-8") from None
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, unprintable.start()) + 1
        raise RefusedError(f"holds the control character U+{ord(unprintable[0]):04X}", line)
    return text


def _document(path: Path, root: Node, *, shared: bool) -> Document:
    if _is_null(root):
        return Document()
    if not isinstance(root, Branch) or root.is_list:
        raise RefusedError(f"must begin with `{SECTION}:`", root.line)
    reader = _Reader(path)
    data: Any = {}
    found: int | None = None
    for key, value in root.pairs:
        if not isinstance(key, Scalar) or key.text != SECTION:
            if not shared:
                reader.refuse_top_level(key)
        elif found is not None:
            reader.problem((), f"is given twice, first in line {found}", key.line)
        else:
            found = key.line
            data = {} if _is_null(value) else reader.value(value, (), key.line)
    if data is not None and not isinstance(data, dict):
        reader.problem((), f"is {shown(data)}, not a mapping of settings", found)
    data = data if isinstance(data, dict) else {}
    return Document(data, reader.places, tuple(reader.problems))


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.tag is None and node.text in _NULLS


class _Reader:
    """Turns nodes into plain data, noting places and problems on the way."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.places: dict[Loc, Place] = {}
        self.problems: list[Problem] = []

    def problem(self, loc: Loc, reason: str, line: int | None, remedy: str = "") -> None:
        self.problems.append(Problem(path_text(loc), reason, Place(self._file, line), remedy))

    def refuse_top_level(self, key: Node) -> None:
        text = key.text if isinstance(key, Scalar) else "?"
        remedy = near(text, [SECTION]) or f"only `{SECTION}:` may stand here: indent it below that"
        place = Place(self._file, key.line)
        self.problems.append(Problem(key_text(text), "unknown key", place, remedy))

    def value(self, node: Node, loc: Loc, line: int) -> Any:
        """Return plain data; None where there is no usable value, which is then a problem."""
        self.places[loc] = Place(self._file, line)
        if isinstance(node, Scalar):
            return self._scalar(node, loc, line)
        if node.tag is not None:
            return self.problem(loc, f"has the tag {shown(node.tag)}", line, "remove the tag")
        return self._list(node, loc) if node.is_list else self._mapping(node, loc)

    def _scalar(self, node: Scalar, loc: Loc, line: int) -> Any:
        if _is_null(node):
            return self.problem(loc, "has no value", line, "give it one or remove it")
        if node.tag not in (None, "!", "tag:yaml.org,2002:str"):
            return self.problem(loc, f"has the tag {shown(node.tag)}", line, "remove the tag")
        if _NO_TEXT.search(node.text):
            return self.problem(loc, "holds a NUL or half a surrogate pair", line)
        return _resolve(node.text) if node.plain and node.tag is None else node.text

    def _list(self, node: Branch, loc: Loc) -> list[Any]:
        items = (self.value(n, (*loc, i), n.line) for i, n in enumerate(node.children))
        return [item for item in items if item is not None]

    def _mapping(self, node: Branch, loc: Loc) -> dict[str, Any]:
        pairs = self._pairs(node, loc)
        items = {key: self.value(n, (*loc, key), line) for key, (line, n) in pairs.items()}
        return {key: item for key, item in items.items() if item is not None}

    def _pairs(self, node: Branch, loc: Loc) -> dict[str, tuple[int, Node]]:
        own: dict[str, tuple[int, Node]] = {}
        merged: dict[str, tuple[int, Node]] = {}
        for key, value in node.pairs:
            if not isinstance(key, Scalar) or _NO_TEXT.search(key.text):
                self.problem(loc, "has a key that is not text", key.line)
            elif key.text == "<<" and key.plain:
                for source in self._merged(value, loc):
                    merged = self._pairs(source, loc) | merged
            elif key.text in own:
                first = own[key.text][0]
                self.problem((*loc, key.text), f"is given twice, first in line {first}", key.line)
            else:
                own[key.text] = (key.line, value)
        return merged | own

    def _merged(self, value: Node, loc: Loc) -> list[Branch]:
        children = value.children if isinstance(value, Branch) and value.is_list else (value,)
        sources = [child for child in children if isinstance(child, Branch) and not child.is_list]
        if len(sources) < len(children):
            self.problem(loc, "merges with `<<` what is not a mapping", value.line)
        return sources


def _resolve(text: str) -> str | bool | int | float:
    if (boolean := _BOOLEANS.get(text.lower())) is not None:
        return boolean
    if _INTEGER.fullmatch(text):
        return int(text)
    if _HEX_OR_OCTAL.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text
