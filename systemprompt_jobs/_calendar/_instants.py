"""Whole seconds since the epoch, which all arithmetic here is done in, from and to datetimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = 86400


def at_or_before(moment: datetime) -> int:
    """Return the last whole second that is not after `moment`."""
    try:
        return (moment - EPOCH) // SECOND
    except (TypeError, AttributeError):
        raise _not_aware(moment) from None


def strictly_before(moment: datetime) -> int:
    """Return the last whole second that is before `moment`."""
    try:
        return -((EPOCH - moment) // SECOND) - 1
    except (TypeError, AttributeError):
        raise _not_aware(moment) from None


def as_datetime(instant: int | None) -> datetime | None:
    """Return the instant as aware UTC; None for none and for what is beyond year 9999."""
    if instant is None:
        return None
    try:
        return EPOCH + timedelta(0, instant)
    except OverflowError:
        return None


def _not_aware(moment: object) -> TypeError:
    return TypeError(
        f"a schedule takes aware datetimes, got {moment!r}: add tzinfo, e.g. datetime.now(UTC)"
    )
