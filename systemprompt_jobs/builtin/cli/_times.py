"""Instants and durations in short words. All instants are aware UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from systemprompt_jobs.errors import UsageError

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_MINUTE = 60


def now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


def read_instant(option: str, text: str, zone: tzinfo) -> datetime:
    """Return the instant that an option says: ISO 8601, in `zone` where it has no offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: write a time such as 2026-03-29T01:00") from None
    return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)


def duration(option: str, text: str) -> timedelta:
    """Return the duration that an option says, e.g. `7d`. Raises UsageError."""
    from pydantic import TypeAdapter, ValidationError

    from systemprompt_jobs import Duration

    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"{option}: {said}") from None


def moment(option: str, text: str) -> datetime:
    """Return the instant that an option says: a time, in UTC without an offset, or how long ago.

    Raises UsageError.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return now() - duration(option, text)
    except (UsageError, OverflowError):
        raise UsageError(
            f"{option}: {text!r} is no time: write 2026-03-29T01:00, or 2h for two hours ago"
        ) from None


def instant(value: datetime) -> str:
    """Return e.g. `2026-05-01 02:30:00`."""
    return value.strftime("%Y-%m-%d %H:%M:%S")


def short(value: datetime, today: datetime) -> str:
    """Return the time of an instant of `today`, else its date and time."""
    if value.date() == today.date():
        return value.strftime("%H:%M:%S")
    same_year = value.year == today.year
    return value.strftime("%m-%d %H:%M" if same_year else "%Y-%m-%d")


def relative(value: datetime, to: datetime) -> str:
    """Return e.g. `in 12 min` or `3 h ago`."""
    seconds = round((value - to).total_seconds())
    size, unit = next((u for u in _UNITS if abs(seconds) >= u[0]), _UNITS[-1])
    number = abs(seconds) // size
    if not number:
        return "now"
    return f"in {number} {unit}" if seconds > 0 else f"{number} {unit} ago"


def took(value: timedelta | None) -> str:
    """Return e.g. `12 ms`, `3.4 s`, `2 min 5 s`; empty for None."""
    if value is None:
        return ""
    seconds = value.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    if minutes < _MINUTE:
        return f"{minutes} min {rest} s"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE} min"
