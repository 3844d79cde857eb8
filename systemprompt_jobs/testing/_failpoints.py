"""The places where a process may die: those of the tests with real processes, by the same names."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from systemprompt_jobs._store import runs

from ._world import Crash

if TYPE_CHECKING:
    from collections.abc import Callable

    from systemprompt_jobs._node import LiveNode

    from ._machine import Machine

PLACES = (
    "in_claim",  # ticks inserted, not committed
    "after_claim",  # committed, nobody told
    "in_gate",
    "after_gate",  # committed, function not started
    "mid_run",  # the function has done its work, and has not returned
    "before_finish",  # it has returned
    "in_finish",
)


class Failpoints:
    """One armed place of one process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._place = ""
        self._left = 0
        self._undo: list[tuple[Any, str, Any]] = []

    def arm(self, live: LiveNode, place: str, hits: int) -> None:
        """Have the process die when it comes to the place for the n-th time."""
        assert place in PLACES, f"no place {place!r}: there is {', '.join(PLACES)}"
        self.disarm()
        self._place, self._left = place, hits
        owner, name, after = {
            "in_claim": (runs, "add", True),
            "after_claim": (live._claimer, "_claim", True),
            "in_gate": (runs, "gate", True),
            "after_gate": (live._recorder, "_start", False),
            "mid_run": (None, "", False),
            "before_finish": (live._recorder, "report", False),
            "in_finish": (runs, "finish", True),
        }[place]
        if owner is not None:
            self._undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, self._broken(getattr(owner, name), place, after=after))

    def disarm(self) -> None:
        """Forget the place."""
        self._place = ""
        while self._undo:
            setattr(*self._undo.pop())

    def reach(self, place: str) -> None:
        """Die if this is the place and the time."""
        if place == self._place and self._machine.world.acting is self._machine:
            self._left -= 1
            if self._left == 0:
                raise Crash(place)

    def _broken(
        self, function: Callable[..., Any], place: str, *, after: bool
    ) -> Callable[..., Any]:
        @wraps(function)
        def broken(*arguments: Any, **values: Any) -> Any:
            if not after:
                self.reach(place)
            result = function(*arguments, **values)
            if after and (any(result) if isinstance(result, tuple) else result):
                self.reach(place)
            return result

        return broken
