"""The one thread of this plugin: it sends, and looks once a minute at what nobody reports."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from systemprompt_jobs.errors import StoreError

from ._alert import Alert, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._clock import Clock
    from ._config import Config
    from ._history import History
    from ._memory import Memory
    from ._outbox import Outbox

LOOK_S = 60.0


class Worker:
    """A bounded queue of alerts and the thread that sends them. `put` never blocks."""

    def __init__(
        self, config: Config, memory: Memory, outbox: Outbox, history: History, clock: Clock
    ) -> None:
        self._config = config
        self._memory = memory
        self._outbox = outbox
        self._history = history
        self._clock = clock
        self._queue: queue.Queue[Alert | None] = queue.Queue(config.queue)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs-alerts", daemon=True)
        self._log = structlog.get_logger("systemprompt_jobs")
        self._next_look = clock.monotonic() + LOOK_S
        self._began = False
        self._overflow = 0
        self._told = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, alerts: Iterable[Alert]) -> None:
        """Have these sent soon; those that do not fit are counted."""
        for alert in alerts:
            try:
                self._queue.put_nowait(alert)
            except queue.Full:
                self._overflow += 1  # put by the observer's thread alone

    def stop(self, seconds: float) -> None:
        """Send what waits, once and in one message per channel, for at most `seconds`."""
        self._stopping.set()
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(seconds)
        self._report_dropped()
        unread = sum(alert is not None for alert in list(self._queue.queue))
        if waiting := unread + self._outbox.waiting:
            self._log.warning("alerts_not_drained", waiting=waiting)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._take(self._safely())
        self._take(0.0)
        self._outbox.flush()

    def _take(self, seconds: float) -> None:
        """Move what has been put to the outbox, and wait for the first so long."""
        with suppress(queue.Empty):
            alert = self._queue.get(timeout=seconds) if seconds else self._queue.get_nowait()
            while True:
                if alert is not None:
                    self._outbox.add(alert)
                alert = self._queue.get_nowait()

    def _safely(self) -> float:
        try:
            return self.step()
        except Exception:  # noqa: BLE001  # a look that fails must not end the sending
            self._log.exception("alerts_failed")
            return LOOK_S

    def step(self) -> float:
        """Do what is due; return seconds until there is more to do."""
        if not self._began:
            self._began = True
            self._begin()
        if self._clock.monotonic() >= self._next_look:
            self._next_look = self._clock.monotonic() + LOOK_S
            self._look()
        pause = self._outbox.step()
        look = max(0.0, self._next_look - self._clock.monotonic())
        return look if pause is None else min(pause, look)

    def _begin(self) -> None:
        """Learn from the history what was told before this process, and when jobs succeeded."""
        deadlines = self._history.deadlines(self._config)
        self._memory.watch(deadlines, self._clock.monotonic())
        with suppress(StoreError):
            for alert in self._history.troubled(self._clock.now()):
                self._memory.remember(alert, self._clock.monotonic())
            for job in deadlines:
                self._learn_success(job)

    def _learn_success(self, job: str) -> None:
        at = self._history.last_success(job)
        if at is not None:
            age = (self._clock.now() - at).total_seconds()
            self._memory.last_success(job, self._clock.monotonic() - age)

    def _look(self) -> None:
        self._report_dropped()
        for alert in self._memory.database_lasting(self._clock.monotonic()):
            self._outbox.add(alert)
        with suppress(StoreError):  # an outage is said in its own words
            self._look_into_history()
        for alert in self._memory.repeats(self._clock.monotonic()):
            self._outbox.add(alert)

    def _look_into_history(self) -> None:
        """See what succeeded elsewhere, then what has not succeeded anywhere."""
        for job, last in self._memory.troubled().items():
            at = self._history.last_success(job)
            if at is not None and at > last:
                for alert in self._memory.succeeded(job, at, self._clock.monotonic()):
                    self._outbox.add(alert)
        for job in self._memory.overdue(self._clock.monotonic()):
            self._learn_success(job)
        overdue = self._memory.overdue(self._clock.monotonic())
        if overdue and self._history.speaks():
            paused = self._history.paused()
            for job, seconds in overdue.items():
                if job not in paused:
                    self._say_overdue(job, seconds)

    def _say_overdue(self, job: str, seconds: float) -> None:
        subject = f"{job} has not succeeded for {words(seconds)}"
        details = f"it should once in {words(self._memory.deadline(job))}"
        alert = Alert(Kind.NO_SUCCESS, subject, self._clock.now(), job, details)
        for said in self._memory.happened(alert, self._clock.monotonic()):
            self._outbox.add(said)

    def _report_dropped(self) -> None:
        dropped = self._overflow + self._outbox.dropped
        if dropped > self._told:
            self._log.warning("alerts_dropped", number=dropped - self._told)
            self._told = dropped


def words(seconds: float) -> str:
    """Return e.g. `1 d 2 h`, `26 min` or `40 s`: the two largest units that are not zero."""
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number:.0f} {unit}")
    return " ".join(parts[:2]) or "0 s"
