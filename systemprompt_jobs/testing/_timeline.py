"""What has happened, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, overload
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from systemprompt_jobs import Run

    from ._world import Moment

_SHOWN = 60
"""Moments that a text of a time line has, its newest."""

_LONGEST = 80


class Timeline(Sequence["Moment"]):
    """Moments in their order. As a text: one line each, in the zone of the test."""

    def __init__(self, moments: Iterable[Moment], zone: str) -> None:
        self.moments = tuple(moments)
        self.zone = zone

    def __len__(self) -> int:
        return len(self.moments)

    @overload
    def __getitem__(self, index: int) -> Moment: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Moment, ...]: ...

    def __getitem__(self, index: int | slice) -> Moment | tuple[Moment, ...]:
        return self.moments[index]

    def of(self, *what: str) -> Timeline:
        """Return the moments of these kinds, e.g. `run_failed`."""
        return Timeline((moment for moment in self.moments if moment.what in what), self.zone)

    def __str__(self) -> str:
        zone = ZoneInfo(self.zone)
        lines = [_line(moment, zone) for moment in self.moments[-_SHOWN:]]
        if (left_out := len(self) - len(lines)) > 0:
            lines.insert(0, f"({left_out:,} moments before these)")
        return "\n".join(lines)

    __repr__ = __str__


class Count(int):
    """A number of runs that knows what it has counted, for the message of a failed assertion."""

    what: str

    def __new__(cls, number: int, what: str) -> Self:
        """Return the number."""
        count = super().__new__(cls, number)
        count.what = what
        return count


def _line(moment: Moment, zone: ZoneInfo) -> str:
    at = moment.at.astimezone(zone)
    clock = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} {at:%Z}"
    return f"{clock}  {moment.node}  {moment.what:<18} {_details(moment, zone)}".rstrip()


def _details(moment: Moment, zone: ZoneInfo) -> str:
    run = moment.run
    said = [_run(run, zone)] if run is not None else []
    for name, value in moment.details.items():
        if name == "report" and value is not None:
            said += [value.error or value.message]
        elif name not in {"run", "report", "node"}:
            said.append(f"{name}={_text(value, zone)}")
    return ", ".join(text for text in said if text)


def _run(run: Run, zone: ZoneInfo) -> str:
    text = f"{run.job_id} run {run.id}"
    if run.attempt > 1:
        text += f" attempt {run.attempt}"
    if run.tick is not None:
        text += f" of {_text(run.tick, zone)}"
    if run.count > 1:
        text += f" and {run.count - 1} more ticks"
    return f"{text} ({run.reason})" if run.reason else text


def _text(value: Any, zone: ZoneInfo) -> str:
    text = f"{value.astimezone(zone):%H:%M:%S}" if isinstance(value, datetime) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
