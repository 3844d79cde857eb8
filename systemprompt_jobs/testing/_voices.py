"""A voice that remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class HeardVoice:
    """Remembers what an attempt says."""

    def __init__(self) -> None:
        self.progressed: list[tuple[float, float | None, str]] = []
        self.lines: list[str] = []
        self.notes: dict[str, str | float] = {}

    def progress(self, done: float, total: float | None, message: str) -> None:
        self.progressed.append((done, total, message))

    def output(self, text: str) -> None:
        self.lines += text.split("\n")

    def annotate(self, values: Mapping[str, str | float]) -> None:
        self.notes.update(values)
