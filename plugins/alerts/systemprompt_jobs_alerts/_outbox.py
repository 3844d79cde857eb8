"""What is to be sent, by channel: in order, not too much, and again if it did not work."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import structlog

from ._alert import named, summary
from ._channels import NotSentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._alert import Alert
    from ._channels import Channel
    from ._clock import Clock
    from ._config import Config

_LONGEST_DELAY_S = 600.0


class Bucket:
    """A token bucket: it holds `size` and fills up evenly within `seconds`."""

    def __init__(self, size: int, seconds: float, mono: float) -> None:
        self._size, self._rate = float(size), size / seconds
        self._tokens, self._at = float(size), mono

    def tokens(self, mono: float) -> float:
        """Return how many there are."""
        self._tokens = min(self._size, self._tokens + (mono - self._at) * self._rate)
        self._at = mono
        return self._tokens

    def take(self) -> None:
        """Take one that is there."""
        self._tokens -= 1

    def wait(self) -> float:
        """Return in how many seconds there is one."""
        return max(0.0, (1 - self._tokens) / self._rate)


class Lane:
    """The messages of one channel. Only the first is tried; the others wait behind it.

    The last token is spent on one message that stands for all that wait, so a flood arrives as
    a few alerts and a summary, whatever its size.
    """

    def __init__(self, name: str, channel: Channel, config: Config, clock: Clock) -> None:
        self.name = name
        self.dropped = 0
        self._channel = channel
        self._config = config
        self._clock = clock
        mono = clock.monotonic()
        self._bucket = Bucket(config.rate.messages, config.rate.per.total_seconds(), mono)
        self._waiting: deque[Alert] = deque()
        self._tried = 0
        self._not_before = mono
        self._log = structlog.get_logger("systemprompt_jobs")

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, alert: Alert) -> None:
        """Have the alert sent, unless too many wait: then it is counted."""
        if len(self._waiting) < self._config.queue:
            self._waiting.append(alert)
        else:
            self.dropped += 1

    def step(self) -> float | None:
        """Send one message if it is time; return seconds until the next, None if none waits."""
        if not self._waiting:
            return None
        mono = self._clock.monotonic()
        if mono < self._not_before:
            return self._not_before - mono
        if not self._tried:
            tokens = self._bucket.tokens(mono)
            if tokens < 1:
                return self._bucket.wait()
            self._bucket.take()
            if tokens < 2:  # noqa: PLR2004  # the last one is for all
                self._merge()
        self._try()
        return max(0.0, self._not_before - self._clock.monotonic()) if self._waiting else None

    def flush(self) -> None:
        """Try once to send all that waits, in one message."""
        if self._waiting:
            self._merge()
            self._tried = self._config.retry.attempts
            self._try()

    def _merge(self) -> None:
        if len(self._waiting) > 1:
            alerts = list(self._waiting)
            self._waiting.clear()
            self._waiting.append(summary(alerts, self._clock.now()))

    def _try(self) -> None:
        alert = self._waiting[0]
        self._tried += 1
        try:
            self._channel.send(named(alert, self._config.name))
        except NotSentError as error:
            if error.again and self._tried < self._config.retry.attempts:
                pause = max(self._delay(), error.after)
                self._not_before = self._clock.monotonic() + pause
                self._report("alert_delayed", alert, str(error))
                return
            self._report("alert_not_sent", alert, str(error))
        except Exception as error:  # noqa: BLE001  # its text may hold a secret
            self._report("alert_not_sent", alert, type(error).__name__)
        self._waiting.popleft()
        self._tried = 0

    def _delay(self) -> float:
        first = self._config.retry.delay.total_seconds()
        return min(first * 2.0 ** (self._tried - 1), max(first, _LONGEST_DELAY_S))

    def _report(self, event: str, alert: Alert, reason: str) -> None:
        log = self._log.error if event == "alert_not_sent" else self._log.warning
        log(event, channel=self.name, kind=str(alert.kind), job=alert.job, reason=reason)


class Outbox:
    """All lanes, and which of them an alert takes."""

    def __init__(
        self,
        config: Config,
        channels: Mapping[str, Channel],
        tags: Mapping[str, frozenset[str]],
        clock: Clock,
    ) -> None:
        self._config = config
        self._tags = tags
        self._lanes = {name: Lane(name, c, config, clock) for name, c in channels.items()}

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return sum(map(len, self._lanes.values()))

    @property
    def dropped(self) -> int:
        """How many messages did not fit."""
        return sum(lane.dropped for lane in self._lanes.values())

    def add(self, alert: Alert) -> None:
        """Put the alert where its routes lead."""
        for name in self._config.route(alert, self._tags.get(alert.job, frozenset())):
            self._lanes[name].add(alert)

    def step(self) -> float | None:
        """Send at most one message per channel; return seconds until there is more to do."""
        waits = [lane.step() for lane in self._lanes.values()]
        return min((wait for wait in waits if wait is not None), default=None)

    def flush(self) -> None:
        """Try once to send all that waits: one message per channel."""
        for lane in self._lanes.values():
            lane.flush()
