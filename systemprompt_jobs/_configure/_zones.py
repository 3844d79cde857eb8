"""Time zones by IANA name."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from .._parameters import near, shown


def check_zone(name: str) -> str:
    """Return `name`; raise ValueError with the nearest name if there is no such zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = near(name, available_timezones()) or "write an IANA name such as Europe/Berlin"
        raise ValueError(f"{shown(name)} is no time zone: {hint}") from None
    return name
