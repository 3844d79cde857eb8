"""When messages are sent: in order, at a rate, again after a failure, and not for ever."""

from __future__ import annotations

import pytest
import structlog
from systemprompt_jobs_alerts._alert import Alert
from systemprompt_jobs_alerts._channels import NotSentError
from systemprompt_jobs_alerts._config import read
from systemprompt_jobs_alerts._outbox import Outbox

from tests.support import START

WEB = {"type": "webhook", "url": "https://example.com"}


class Wire:
    """A channel that raises `errors` first, and keeps what it sends."""

    def __init__(self):
        self.sent = []
        self.errors = []

    def send(self, alert):
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.sent.append(alert.subject.removeprefix("[here] "))


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def outbox(wire, clock):
    def make(**settings):
        section = {"name": "here", "channels": {"a": WEB}, **settings}
        return Outbox(read(section), {"a": wire}, {}, clock)

    return make


def alert(subject="x", kind="failed"):
    return Alert(kind, str(subject), START, "e:a")


def busy(after=0.0):
    return NotSentError("it is busy", again=True, after=after)


def send_all(box):
    """Step until there is something to wait for; return how long, None if all is sent."""
    while (pause := box.step()) == 0:
        pass
    return pause


def test_messages_keep_their_order_and_bear_the_deployments_name(outbox, wire):
    box = outbox()
    for n in range(3):
        box.add(alert(n))
    assert send_all(box) is None
    assert wire.sent == ["0", "1", "2"]


def test_the_name_stands_before_the_subject(clock):
    seen = []
    channel = type("Seen", (), {"send": lambda _, alert: seen.append(alert.text)})()
    box = Outbox(read({"name": "here", "channels": {"a": WEB}}), {"a": channel}, {}, clock)
    box.add(alert())
    box.step()
    assert seen == ["[here] x"]


def test_of_a_flood_the_last_message_sums_up_the_rest(outbox, wire):
    box = outbox(rate={"messages": 3, "per": "1m"})
    for n in range(100):
        box.add(alert(n, "failed" if n % 2 else "lost"))
    assert send_all(box) is None
    assert wire.sent == ["0", "1", "98 more alerts: 49 lost, 49 failed"]


def test_what_comes_after_a_flood_waits_for_the_rate_and_comes_in_one(outbox, wire, clock):
    box = outbox(rate={"messages": 3, "per": "1m"})
    for n in range(3):
        box.add(alert(n))
        send_all(box)
    wire.sent.clear()
    box.add(alert(3))
    assert send_all(box) == pytest.approx(20)
    box.add(alert(4))
    clock.advance(19)
    assert send_all(box) == pytest.approx(1)
    assert wire.sent == []
    clock.advance(1.01)
    assert send_all(box) is None
    assert wire.sent == ["2 more alerts: 2 failed"]


def test_a_summary_names_what_it_stands_for_but_not_without_end(clock):
    texts = []
    channel = type("Seen", (), {"send": lambda _, alert: texts.append(alert.details)})()
    settings = {"channels": {"a": WEB}, "rate": {"messages": 1}}
    box = Outbox(read(settings), {"a": channel}, {}, clock)
    for n in range(100):
        box.add(alert(n % 50))
    send_all(box)
    lines = texts[0].splitlines()
    assert lines == [*map(str, range(20)), "and 30 more"]


def test_a_failed_message_is_tried_again_later_and_later_and_the_others_wait(outbox, wire, clock):
    box = outbox(retry={"attempts": 4, "delay": "5s"})
    wire.errors = [busy(), busy(), busy()]
    box.add(alert("first"))
    box.add(alert("second"))
    pauses = []
    with structlog.testing.capture_logs() as log:
        while (pause := send_all(box)) is not None:
            pauses.append(pause)
            clock.advance(pause)
    assert pauses == pytest.approx([5, 10, 20])
    assert wire.sent == ["first", "second"]
    assert [entry["event"] for entry in log] == ["alert_delayed"] * 3


def test_the_other_side_may_ask_for_more_time(outbox, wire):
    box = outbox()
    wire.errors = [busy(after=90)]
    box.add(alert())
    assert send_all(box) == 90


def test_pauses_do_not_grow_beyond_ten_minutes(outbox, wire, clock):
    box = outbox(retry={"attempts": 20})
    wire.errors = [busy() for _ in range(19)]
    box.add(alert())
    pause = 0.0
    for _ in range(19):
        pause = send_all(box)
        clock.advance(pause)
    assert pause == pytest.approx(600)
    assert send_all(box) is None
    assert wire.sent == ["x"]


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ([busy(), busy()], "it is busy"),
        ([NotSentError("it is gone", again=False)], "it is gone"),
        ([ValueError("S3CRET")], "ValueError"),
    ],
)
def test_a_message_that_cannot_be_sent_is_given_up_and_the_log_says_why(
    outbox, wire, clock, errors, reason
):
    box = outbox(retry={"attempts": 2})
    wire.errors = errors
    box.add(alert("first"))
    box.add(alert("second"))
    with structlog.testing.capture_logs() as log:
        while (pause := send_all(box)) is not None:
            clock.advance(pause)
    assert wire.sent == ["second"]
    assert log[-1] == {
        "event": "alert_not_sent",
        "log_level": "error",
        "channel": "a",
        "kind": "failed",
        "job": "e:a",
        "reason": reason,
    }


def test_a_dead_channel_does_not_hold_up_another(wire, clock):
    dead = Wire()
    dead.errors = [busy() for _ in range(10)]
    box = Outbox(read({"channels": {"a": WEB, "b": WEB}}), {"a": dead, "b": wire}, {}, clock)
    for n in range(3):
        box.add(alert(n))
    for _ in range(3):
        box.step()
    assert [subject.split()[-1] for subject in wire.sent] == ["0", "1", "2"]
    assert dead.sent == []


def test_what_does_not_fit_is_counted(outbox):
    box = outbox(queue=2)
    for n in range(5):
        box.add(alert(n))
    assert (box.waiting, box.dropped) == (2, 3)


def test_at_the_end_all_is_tried_once_in_one_message_past_rate_and_pauses(outbox, wire):
    box = outbox(rate={"messages": 1})
    wire.errors = [busy()]
    for n in range(3):
        box.add(alert(n))
    send_all(box)
    box.add(alert(3))
    box.flush()
    assert [subject[:13] for subject in wire.sent] == ["2 more alerts"]
    assert box.waiting == 0


def test_at_the_end_nothing_is_tried_twice(outbox, wire):
    box = outbox()
    wire.errors = [busy(), busy()]
    box.add(alert())
    with structlog.testing.capture_logs():
        box.flush()
    assert (box.waiting, len(wire.errors)) == (0, 1)


def test_the_tags_of_the_job_decide_the_way(wire, clock):
    section = {"channels": {"a": WEB}, "routes": [{"channels": ["a"], "tags": ["red"]}]}
    box = Outbox(read(section), {"a": wire}, {"e:a": frozenset({"red"})}, clock)
    box.add(alert())
    box.add(Alert("failed", "other", START, "e:b"))
    assert box.waiting == 1
