"""Compose YAML text into nodes that know their line: bounded in depth and size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 50
MAX_VALUES = 100_000

# libyaml where PyYAML was built with it: twenty times as fast, the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNQUOTED = re.compile(r"\b(?P<key>\w{1,60}):\s+(?P<value>[*@%`].*?)\s*(?:\s#.*|,\s.*|}.*)?$")


class RefusedError(Exception):
    """Nothing of the file can be used."""

    def __init__(self, reason: str, line: int | None = None, remedy: str = "") -> None:
        self.reason, self.line, self.remedy = reason, line, remedy


@dataclass(frozen=True, slots=True)
class Scalar:
    line: int
    text: str
    plain: bool = True
    tag: str | None = None
    height: int = 1
    size: int = 1


@dataclass(frozen=True, slots=True)
class Branch:
    """A list, or a mapping as its keys and values in turn, with its aliases expanded."""

    line: int
    children: tuple[Node, ...]
    is_list: bool
    tag: str | None
    height: int
    size: int

    @property
    def pairs(self) -> Iterator[tuple[Node, Node]]:
        return zip(self.children[::2], self.children[1::2], strict=True)


Node: TypeAlias = Scalar | Branch


def compose(text: str) -> Node:
    try:
        return _Composer(text).document()
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text) from None
    except yaml.YAMLError as error:
        raise RefusedError(f"is not valid YAML: {str(error)[:200]}") from None


class _Composer:
    """Builds nodes from parser events: bounded in depth and size, aliases expanded."""

    def __init__(self, text: str) -> None:
        self._events = yaml.parse(text, Loader=_LOADER)
        self._lines = text.splitlines()
        self._anchors: dict[str, Node] = {}
        self._open: set[str] = set()

    def document(self) -> Node:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return Scalar(1, "")
        node = self._node(next(self._events), 1)
        next(self._events)
        if not isinstance(event := next(self._events), yaml.StreamEndEvent):
            raise RefusedError("holds a second document", _line(event), "remove it and its `---`")
        return node

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth > MAX_DEPTH:
            raise RefusedError(f"is nested deeper than {MAX_DEPTH} levels", _line(event))
        if isinstance(event, yaml.ScalarEvent):
            node: Node = Scalar(_line(event), event.value, not event.style, event.tag)
        else:
            self._open.add(event.anchor)
            node = self._branch(event, depth)
            self._open.discard(event.anchor)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _branch(self, start: Any, depth: int) -> Branch:
        is_list = isinstance(start, yaml.SequenceStartEvent)
        children = tuple(self._children(depth + 1))
        height = 1 + max((child.height for child in children), default=0)
        size = 1 + sum(child.size for child in children)
        if height > MAX_DEPTH or size > MAX_VALUES:
            raise RefusedError(
                f"holds more than {MAX_DEPTH} levels or {MAX_VALUES} values", _line(start)
            )
        return Branch(_line(start), children, is_list, start.tag, height, size)

    def _children(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.CollectionEndEvent):
            yield self._node(event, depth)

    def _alias(self, event: Any) -> Node:
        name = event.anchor[:60]
        if event.anchor in self._open:
            raise RefusedError(f"the alias *{name} refers to itself", _line(event))
        if event.anchor not in self._anchors:
            line = self._lines[_line(event) - 1]
            remedy = _unquoted(line) if "schedule:" in line else ""
            raise RefusedError(
                f"the alias *{name} has no anchor &{name} above it", _line(event), remedy
            )
        return self._anchors[event.anchor]


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _syntax(error: yaml.MarkedYAMLError, text: str) -> RefusedError:
    at_end = "end of stream" in (error.problem or "")  # of a quote, say, that was never closed
    mark = (error.context_mark if at_end else None) or error.problem_mark or error.context_mark
    number = mark.line + 1 if mark else 1
    line = (text.splitlines()[mark.line :] or [""])[0] if mark else ""
    if re.match(r" *\t", line):
        return RefusedError("the line is indented with a tab", number, "use spaces")
    if remedy := _unquoted(line):
        return RefusedError(
            "a value that begins with a special character needs quotes", number, remedy
        )
    said = ", ".join(part for part in (error.context, error.problem) if part)
    remedy = "check the indentation and the quotes here and in the line before"
    return RefusedError(f"is not valid YAML: {said[:200]}", number, remedy)


def _unquoted(line: str) -> str:
    if not (match := _UNQUOTED.search(line[:200])):
        return ""
    what = "schedule" if match["key"] == "schedule" else "value"
    return f'quote the {what}: {match["key"]}: "{match["value"]}"'
