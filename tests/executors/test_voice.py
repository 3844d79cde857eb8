"""What goes over from a worker process: notes at once, of progress the last, as plain values."""

from __future__ import annotations

import enum
import threading

import pytest

from systemprompt_jobs.builtin.processes._voice import CarriedVoice
from systemprompt_jobs.builtin.processes._wire import line, value_of
from tests.support import START

PATIENCE_S = 60


class Colour(enum.IntEnum):
    RED = 3


class Unsayable:
    def __str__(self):
        raise ValueError("no text")


class Far:
    """The scheduler's end: what has come over."""

    def __init__(self):
        self.heard = []
        self.come = threading.Semaphore(0)

    def send(self, said):
        self.heard.append(value_of(line(said)))
        self.come.release()


@pytest.fixture
def far():
    return Far()


@pytest.fixture
def voice(far):
    voice = CarriedVoice(far.send)
    yield voice
    voice.end()


def test_of_very_much_progress_little_goes_over_and_the_last_always(voice, far):
    for n in range(200_001):
        voice.progress(n, 200_000, "")
    voice.end()
    assert far.heard[-1] == ["progress", 200_000, 200_000, ""]
    assert len(far.heard) < 200


def test_the_last_goes_over_although_the_function_goes_on_in_silence(voice, far):
    for n in range(3):
        voice.progress(n, None, "")
    while not far.heard or far.heard[-1] != ["progress", 2, None, ""]:
        assert far.come.acquire(timeout=PATIENCE_S)


def test_notes_go_over_at_once(voice, far):
    voice.annotate({"trace": "4bf9"})
    assert far.heard == [["annotate", {"trace": "4bf9"}]]


def test_nothing_goes_over_after_the_end(voice, far):
    voice.end()
    voice.progress(1, 2, "")
    voice.annotate({"late": 1})
    voice.end()
    assert far.heard == []


def test_values_of_any_kind_become_plain_ones(voice, far):
    voice.annotate({"colour": Colour.RED, "yes": True, "when": START, "long": "x" * 50_000})
    voice.progress(Colour.RED, "many", START)
    voice.end()
    (_, notes), progress = far.heard
    assert (notes["colour"], notes["yes"], notes["when"]) == (3, True, str(START))
    assert len(notes["long"]) < 20_000
    assert progress == ["progress", 3, "many", str(START)]


def test_what_cannot_be_said_hurts_nobody(voice, far):
    voice.annotate({"odd": Unsayable()})
    voice.progress(1, 2, Unsayable())
    voice.end()
    assert far.heard == []
