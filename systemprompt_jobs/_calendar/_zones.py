"""Time zones, cut into stretches during which the offset from UTC is one number."""

from __future__ import annotations

import functools
import re
import reprlib
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from ..errors import ScheduleError
from ._instants import DAY, EPOCH, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
# Files of the same folder that mean something else on each host, or count leap seconds.
_LOCAL = re.compile(r"(localtime|posixrules|Factory|(posix|right)/.*)")

_LONGEST = 64
_WINDOW = 22  # a window is 2**22 seconds, some 48 days
# The shortest stretch of any zone ever is 3 days and 23:40 (Freetown, 1939), so probes 3 days
# apart cannot miss one.
_PROBE = 1 << 18
_FIRST, _LAST = -719160 * DAY, 2932890 * DAY  # what datetime can convert in every zone


class Stretch(NamedTuple):
    """Instants `start` <= t < `end` whose local time is t + `offset`; `before` is the last offset.

    Where the stretch is not known to begin with a transition, `before` is `offset`.
    """

    start: int
    end: int
    offset: int
    before: int


def check_zone(name: object) -> str:
    """Return the name if it is an IANA zone, else raise ScheduleError with near names."""
    if not isinstance(name, str):
        raise ScheduleError(
            f"timezone {reprlib.repr(name)}: must be an IANA name such as 'Europe/Berlin'"
        )
    _zone(name)
    return name


@functools.lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    if len(name) <= _LONGEST and _NAME.fullmatch(name) and not _LOCAL.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (LookupError, ValueError, OSError):  # OSError: the name of a folder
            pass
    raise ScheduleError(f"timezone {name!r:.60}: no such zone; {_remedy(name)}")


def _remedy(name: str) -> str:
    import difflib

    known = _names()
    last = name[:_LONGEST].replace(" ", "_").casefold()
    near = [zone for zone in known if last in (zone.casefold(), zone.rpartition("/")[2].casefold())]
    near = near or difflib.get_close_matches(name[:_LONGEST], known, n=3)
    if not near:
        return "use an IANA name such as 'Europe/Berlin'"
    return f"did you mean {' or '.join(near[:3])}?"


@functools.cache
def _names() -> tuple[str, ...]:
    from importlib.resources import files

    return tuple((files("tzdata") / "zones").read_text("ascii").split())


def stretch(zone: str, instant: int) -> Stretch:
    """Return the stretch of `zone` that holds `instant` (or the part of it around that)."""
    for found in _window(zone, instant >> _WINDOW):
        if instant < found.end:
            return found
    raise AssertionError("a window covers its own instants")


@functools.lru_cache(maxsize=8192)
def _window(zone: str, index: int) -> tuple[Stretch, ...]:
    """Return the stretches of one window, from a day before it.

    A day, because what an overlap repeats may reach from one window into the next.
    """
    offset_at = functools.partial(_offset, _zone(zone))
    start, end = (index << _WINDOW) - DAY, (index + 1) << _WINDOW
    stretches, known = [], start - 1
    before = offset = offset_at(known)
    for probe in (*range(start, end - 1, _PROBE), end - 1):
        if (found := offset_at(probe)) != offset:
            change = _change(offset_at, known, probe)
            stretches.append(Stretch(start, change, offset, before))
            start, before, offset = change, offset, found
        known = probe
    return (*stretches, Stretch(start, end, offset, before))


def _change(offset_at: Callable[[int], int], old: int, new: int) -> int:
    """Return the first instant with the offset of `new`, where `old` still has another."""
    offset = offset_at(new)
    while new - old > 1:
        middle = (old + new) // 2
        if offset_at(middle) == offset:
            new = middle
        else:
            old = middle
    return new


def _offset(zone: ZoneInfo, instant: int) -> int:
    moment = EPOCH + timedelta(0, min(max(instant, _FIRST), _LAST))
    return (moment.astimezone(zone).utcoffset() or timedelta()) // SECOND
