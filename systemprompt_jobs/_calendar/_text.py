"""A cron text, read by croniter, into `Fields`.

croniter is asked only what it answers rightly: single values, names, `*`, steps, `L`, `#` and
`W`. Ranges are written out before, because it widens `5-5` to the whole field and starts over
wrongly in a range that wraps with a step (`23-3/2`).
"""

# ruff: noqa: PLR2004 - field counts and lengths of messages
from __future__ import annotations

import functools
import re
import reprlib
from dataclasses import dataclass
from typing import Any

from ..errors import ScheduleError

ALIASES = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
LONGEST = 256
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True, slots=True)
class Field:
    """One of the six fields: its bounds, the names of its values, and what it accepts."""

    name: str
    low: int
    high: int
    accepts: str
    names: tuple[str, ...] = ()

    def value(self, text: str) -> int | None:
        """Return the value of a number or a name within bounds, else None."""
        if text.upper() in self.names:
            return self.names.index(text.upper()) + self.low
        return int(text) if text.isdigit() and self.low <= int(text) <= self.high else None


SECOND = Field("second", 0, 59, "use 0-59, lists (0,30), ranges (0-10), steps (*/5)")
MINUTE = Field("minute", 0, 59, "use 0-59, lists (0,30), ranges (0-10), steps (*/5)")
HOUR = Field("hour", 0, 23, "use 0-23, lists (8,20), ranges (8-18), steps (*/2)")
DAY = Field("day of month", 1, 31, "use 1-31, L for the last day, 15W for the nearest weekday, ?")
MONTH = Field("month", 1, 12, "use 1-12 or JAN-DEC", MONTHS)
WEEKDAY = Field(
    "day of week",
    0,
    7,
    "use 0-7 or SUN-SAT (0 and 7 are Sunday), 2#1 for the first Tuesday, L5 for the last Friday, ?",
    WEEKDAYS,
)
FIELDS = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)


@dataclass(frozen=True, slots=True)
class Fields:
    """What a text says. Days of month are numbers, weekdays 0 (Sunday) to 6.

    `nearest` is the day of a `W`; `nth` has a pair (weekday, n) for each `#`, with n 0 for the
    last one of a month. `texts` are the six fields as written, in upper case.
    """

    texts: tuple[str, ...]
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    last_day: bool
    nearest: int | None
    months: frozenset[int]
    weekdays: frozenset[int]
    nth: frozenset[tuple[int, int]]

    @property
    def wildcard(self) -> bool:
        """Whether the minute or the hour starts with `*`: then it has no fixed time of day."""
        return self.texts[1].startswith("*") or self.texts[2].startswith("*")

    @property
    def day_restricted(self) -> bool:
        """Whether the day of month is anything but `*` or `?`."""
        return self.texts[3] not in {"*", "?"}

    @property
    def weekday_restricted(self) -> bool:
        """Whether the day of week is anything but `*` or `?`."""
        return self.texts[5] not in {"*", "?"}


def read(text: object) -> Fields:
    """Return what a cron text says. Anything that is not one raises ScheduleError."""
    if not isinstance(text, str):
        raise ScheduleError(
            f"schedule {reprlib.repr(text)}: a text of six fields is needed, got {type(text).__name__}; "
            "e.g. '0 30 2 * * *' for every day at 02:30"
        )
    return _read(text)


@functools.lru_cache(maxsize=4096)
def _read(text: str) -> Fields:
    texts = _split(text)
    plain = [_plain(text, field, value) for field, value in zip(FIELDS, texts, strict=True)]
    try:
        return _fields(texts, plain)
    except Exception:  # noqa: BLE001 - croniter leaks ValueError, TypeError, AttributeError, …
        raise _refusal(text, texts, plain) from None


def _refused(text: str, reason: str) -> ScheduleError:
    shown = repr(text) if len(text) <= 60 else f"{text[:60]!r}…"
    return ScheduleError(f"schedule {shown}: {reason}")


def _split(text: str) -> tuple[str, ...]:
    """Return the six fields in upper case, without looking into them."""
    if len(text) > LONGEST:
        raise _refused(text, f"{len(text)} characters; at most {LONGEST} are allowed")
    if wrong := re.search(r"[^ -~\t]", text):
        raise _refused(
            text, f"{wrong[0]!r} at position {wrong.start()}: use ASCII letters, digits and spaces"
        )
    stripped = text.strip(" \t")
    if stripped.startswith("@"):
        return _alias(text, stripped)
    texts = tuple(stripped.upper().split())
    if len(texts) != len(FIELDS):
        raise _refused(text, _miscounted(texts))
    return texts


def _alias(text: str, alias: str) -> tuple[str, ...]:
    if alias.lower() in ALIASES:
        return tuple(ALIASES[alias.lower()].split())
    if alias.lower() == "@reboot":
        raise _refused(text, "not a time; declare the job with run_on_startup=True")
    raise _refused(text, f"no such alias; use one of {' '.join(ALIASES)}, or six fields")


def _miscounted(texts: tuple[str, ...]) -> str:
    """Say how many fields there are, and which text was probably meant."""
    count = len(texts)
    if count == 5 and _is_valid(six := " ".join(("0", *texts))):
        return f"5 fields given; seconds come first: try {six!r}"
    if count == 7 and _is_valid(six := " ".join(texts[:6])):
        return f"7 fields given; there is no field for the year: try {six!r}"
    names = ", ".join(field.name for field in FIELDS)
    given = f"{count} field{'' if count == 1 else 's'} given"
    return f"{given}; six are needed ({names}), e.g. '0 30 2 * * *' for every day at 02:30"


def _is_valid(text: str) -> bool:
    try:
        return bool(_read(text))
    except ScheduleError:
        return False


def _plain(text: str, field: Field, value: str) -> str:
    """Return the field with its ranges written out as lists; refuse what differs per node."""
    items = value.split(",")
    for item in items:
        if re.fullmatch(r"[HR]([(/].*)?", item):
            raise _refused(
                text,
                f"{field.name} {value!r}: {item[0]} would differ from node to node; "
                "write a number, and spread jobs with splay",
            )
    if field is WEEKDAY and len({bool(re.search(r"#|^L", item)) for item in items}) > 1:
        raise _refused(
            text,
            f"{field.name} {value!r}: # and L cannot be mixed with plain weekdays; make two jobs",
        )
    return ",".join(_range(text, field, item) for item in items)


def _range(text: str, field: Field, item: str) -> str:
    """Write `a-b/step` out as a list; wrapping ranges go on at the start of the field."""
    match = re.fullmatch(r"(\w+)-(\w+)(?:/([0-9]+))?(#\w+)?", item, re.ASCII)
    low, high = (field.value(match[1]), field.value(match[2])) if match else (None, None)
    if match is None or low is None or high is None or (step := int(match[3] or 1)) == 0:
        return item
    if high < low:
        if field is DAY and step > 1:
            raise _refused(
                text,
                f"{field.name} {item!r}: a range over the end of a month cannot have a step, "
                "months differ in length; list the days",
            )
        high += 7 if field is WEEKDAY else field.high - field.low + 1
    return ",".join(f"{_wrapped(field, n)}{match[4] or ''}" for n in range(low, high + 1, step))


def _wrapped(field: Field, number: int) -> int:
    if field is WEEKDAY:
        return number % 7
    return number if number <= field.high else number - (field.high - field.low + 1)


def _croniter(fields: list[str]) -> Any:
    from croniter import croniter  # type: ignore[import-untyped]

    return croniter(" ".join(fields), 0.0, second_at_beginning=True)


def _fields(texts: tuple[str, ...], plain: list[str]) -> Fields:
    parsed = _croniter(plain)
    minutes, hours, days, months, weekdays, seconds = parsed.expanded
    nth = parsed.nth_weekday_of_month
    nearest = next(iter(parsed.nearest_weekday), None)
    return Fields(
        texts=texts,
        seconds=_values(SECOND, seconds),
        minutes=_values(MINUTE, minutes),
        hours=_values(HOUR, hours),
        days=_values(DAY, [day for day in days if day != "l"]) - {nearest},
        last_day="l" in days,
        nearest=nearest,
        months=_values(MONTH, months),
        weekdays=frozenset() if nth else _values(WEEKDAY, weekdays),
        nth=frozenset((day, 0 if n == "l" else n) for day, ns in nth.items() for n in ns),
    )


def _values(field: Field, expanded: list[Any]) -> frozenset[int]:
    if "*" in expanded:
        return frozenset(range(field.low, (6 if field is WEEKDAY else field.high) + 1))
    return frozenset(expanded)


def _refusal(text: str, texts: tuple[str, ...], plain: list[str]) -> ScheduleError:
    """Find the field that is to blame by trying each alone."""
    for index, field in enumerate(FIELDS):
        alone = ["*"] * len(FIELDS)
        alone[index] = plain[index]
        try:
            _croniter(alone)
        except Exception:  # noqa: BLE001 - as above: whatever it raises, it refuses the field
            return _refused(text, f"{field.name} {texts[index]!r}: {_remedy(field, texts[index])}")
    return _refused(text, "croniter refuses it; each field alone is well")


def _remedy(field: Field, value: str) -> str:
    if field is WEEKDAY and (quartz := re.fullmatch(r"([0-7]|[A-Z]{3})L", value)):
        day = field.value(quartz[1])
        return f"the last one of a month is written 'L{day}'" if day is not None else field.accepts
    if field is DAY and re.search(r"\dW|W\d", value) and re.search(r"[,/-]", value):
        return "W takes a single day, as in '15W'"
    return field.accepts
