"""Instants and durations in short words. All instants are aware UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from systemprompt_jobs.builtin.words import relative, took
from systemprompt_jobs.errors import UsageError

__all__ = ["duration", "instant", "moment", "now", "read_instant", "relative", "short", "took"]


def now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


def read_instant(option: str, text: str, zone: tzinfo) -> datetime:
    """Return the instant that an option says: ISO 8601, in `zone` where it has no offset."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text}: write a time such as 2026-03-29T01:00") from None


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
