"""What the thread does in one step: learn, look once a minute, send."""

from __future__ import annotations

from datetime import timedelta

import pytest
import structlog
from systemprompt_jobs_alerts._alert import Alert
from systemprompt_jobs_alerts._config import read
from systemprompt_jobs_alerts._memory import Memory
from systemprompt_jobs_alerts._outbox import Outbox
from systemprompt_jobs_alerts._worker import Worker, words

from systemprompt_jobs.errors import StoreError
from tests.support import START

HOUR = 3600


class Wire:
    def __init__(self):
        self.sent = []

    def send(self, alert):
        self.sent.append(alert.text.removeprefix("[here] "))


class Past:
    """A history that says what a test says."""

    def __init__(self):
        self.successes = {}
        self.trouble = []
        self.pauses = set()
        self.oldest = True
        self.broken = False
        self.asked = []

    def deadlines(self, config):
        return {"e:a": config.no_success["e:*"]}

    def troubled(self, now):
        self._check()
        return self.trouble

    def last_success(self, job):
        self._check()
        self.asked.append(job)
        return self.successes.get(job)

    def paused(self):
        return self.pauses

    def speaks(self):
        return self.oldest

    def _check(self):
        if self.broken:
            raise StoreError("it is gone")


@pytest.fixture
def past():
    return Past()


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def memory():
    return Memory(timedelta(days=1), timedelta(minutes=2))


@pytest.fixture
def worker(past, wire, memory, clock):
    section = {
        "name": "here",
        "channels": {"a": {"type": "webhook", "url": "https://example.com"}},
        "no_success": {"e:*": "26h"},
        "queue": 5,
    }
    config = read(section)
    return Worker(config, memory, Outbox(config, {"a": wire}, {}, clock), past, clock)


@pytest.fixture
def later(worker, clock):
    """Return a function that lets time pass and the worker look."""

    def pass_by(seconds):
        worker.step()  # the first one learns
        clock.advance(seconds)
        while worker.step() == 0:
            pass

    return pass_by


def failed(minutes=0):
    return Alert("failed", "e:a failed", START + timedelta(minutes=minutes), "e:a")


def test_a_job_without_success_since_the_history_began_is_told_once(past, wire, later):
    past.successes["e:a"] = START - timedelta(hours=25)
    later(0.99 * HOUR)
    later(HOUR)
    assert wire.sent == ["e:a has not succeeded for 1 d 2 h\nit should once in 1 d 2 h"]
    later(HOUR)
    assert len(wire.sent) == 1


def test_a_job_that_never_succeeded_counts_from_the_start(wire, later):
    later(25 * HOUR)
    assert wire.sent == []
    later(HOUR)
    assert len(wire.sent) == 1


def test_a_success_on_another_node_counts(past, wire, later):
    past.successes["e:a"] = START + timedelta(hours=20)
    later(27 * HOUR)
    assert wire.sent == []
    later(19 * HOUR)
    assert len(wire.sent) == 1


def test_only_the_oldest_scheduler_tells_of_no_success(past, wire, later):
    past.oldest = False
    later(30 * HOUR)
    assert wire.sent == []
    past.oldest = True
    later(60)
    assert len(wire.sent) == 1


def test_a_paused_job_is_left_in_peace(past, wire, later):
    past.pauses = {"e:a"}
    later(30 * HOUR)
    assert wire.sent == []


def test_a_recovery_elsewhere_is_seen_within_a_minute(past, wire, memory, clock, later):
    memory.happened(failed(), clock.monotonic())
    past.successes["e:a"] = START - timedelta(minutes=1)
    later(60)
    assert wire.sent == []
    past.successes["e:a"] = START + timedelta(minutes=1)
    later(60)
    assert wire.sent == ["e:a succeeds again\nfailed since 2026-03-02 10:00:00 UTC"]


def test_nothing_is_asked_while_all_is_well(past, later):
    later(60)
    past.asked.clear()
    later(HOUR)
    assert past.asked == []


def test_trouble_from_before_the_start_is_not_told_again_and_its_end_is(past, wire, memory, worker):
    past.trouble = [failed()]
    worker.step()
    assert memory.happened(failed(1), 0) == []
    worker.put(memory.succeeded("e:a", START, 0))
    assert wire.sent == []
    worker._take(0)
    worker.step()
    assert wire.sent == ["e:a succeeds again\n2 times failed since 2026-03-02 10:00:00 UTC"]


def test_what_goes_on_is_told_again(wire, memory, clock, later):
    memory.happened(failed(), clock.monotonic())
    later(24 * HOUR)
    assert [text.partition("\n")[0] for text in wire.sent] == ["still: e:a failed"]


def test_an_outage_that_lasts_is_told_though_the_history_cannot_be_asked(
    past, wire, memory, clock, later
):
    memory.database_gone(Alert("database", "gone", START), clock.monotonic())
    memory.happened(failed(), clock.monotonic())
    past.broken = True
    later(60)
    assert wire.sent == []
    later(60)
    assert wire.sent == ["gone"]


def test_without_a_database_at_the_start_the_sending_begins_all_the_same(past, wire, worker):
    past.broken = True
    worker.put([failed()])
    worker._take(0)
    worker.step()
    assert wire.sent == ["e:a failed"]


def test_what_does_not_fit_is_dropped_at_once_counted_and_logged(worker, later):
    worker.put(failed() for _ in range(8))
    with structlog.testing.capture_logs() as log:
        later(60)
        later(60)
    assert log == [{"event": "alerts_dropped", "log_level": "warning", "number": 3}]


def test_it_sleeps_until_the_next_look_when_nothing_waits(worker, clock):
    assert worker.step() == 60
    clock.advance(45)
    assert worker.step() == 15


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (40, "40 s"), (3600, "1 h"), (93_600, "1 d 2 h"), (1565, "26 min 5 s")],
)
def test_durations_in_words(seconds, said):
    assert words(seconds) == said
