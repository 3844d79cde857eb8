"""What an attempt says is bounded, and fit for every database and screen."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta

import pytest

from systemprompt_jobs._said import LOG_CHARACTERS, Said, split_log
from systemprompt_jobs.model import Progress, Report, Run, State, Trigger
from tests.support import START, captured

RUN = Run(7, "ext:copy", Trigger.MANUAL, State.RUNNING)
REPORT = Report(State.SUCCEEDED, START, START)


class Number:
    """An integer of another library."""

    def __index__(self):
        return 12


def test_only_the_last_progress_counts_and_it_is_told_once():
    said = Said(RUN)
    assert said.new_progress(START) is None
    said.progress(1, 10, "first")
    said.progress(2, 10, "second")
    assert said.new_progress(START) == Progress(2, 10, "second", START)
    assert said.new_progress(START) is None
    said.progress(3, None, "")
    assert said.new_progress(START + timedelta(seconds=1)) == Progress(
        3, None, "", START + timedelta(seconds=1)
    )


@pytest.mark.parametrize(("given", "kept"), [(Number(), 12), (True, 1), (0.5, 0.5)])
def test_numbers_of_any_kind_are_taken(given, kept):
    said = Said(RUN)
    said.progress(given, given, "")
    progress = said.new_progress(START)
    assert (progress.done, progress.total) == (kept, kept)


@pytest.mark.parametrize("odd", ["x", None, float("nan"), float("inf"), 2**60, object()])
def test_what_is_no_number_is_ignored_with_a_warning_that_names_the_run(odd):
    said = Said(RUN)
    said.progress(odd, 10, "")
    with captured() as entries:
        assert said.new_progress(START) is None
    (entry,) = entries
    assert (entry["event"], entry["job"], entry["run"]) == ("progress_ignored", "ext:copy", 7)
    assert said.onto(REPORT).progress is None


def test_the_report_has_the_last_progress_even_if_it_was_told_before():
    said = Said(RUN)
    said.progress(9, 10, "")
    said.new_progress(START)
    assert said.onto(REPORT).progress == Progress(9, 10, "", START)
    said.progress(10, 10, "")
    assert said.onto(REPORT).progress.done == 10


def test_a_silent_attempt_leaves_its_report_alone():
    assert Said(RUN).onto(REPORT) is REPORT


def test_of_a_long_log_the_end_is_kept_and_it_says_how_much_is_not():
    said = Said(RUN)
    for n in range(10_000):
        said.output(f"line {n:>20}")
    cut, log = split_log(said.onto(REPORT).log)
    lines = log.split("\n")
    assert lines[-1].endswith(" 9999")
    assert cut + len(lines) == 10_000
    assert LOG_CHARACTERS - 100 < len(log) <= LOG_CHARACTERS


def test_one_huge_line_is_cut_and_says_so():
    said = Said(RUN)
    said.output("x" * 50_000_000)
    log = said.onto(REPORT).log
    assert len(log) < 10_000
    assert log.endswith("… (cut, 50,000,000 characters in all)")


def test_a_log_that_looks_like_a_cut_one_is_whole():
    assert split_log("(5 lines)\nmore") == (0, "(5 lines)\nmore")
    assert split_log("") == (0, "")


def test_what_databases_refuse_is_replaced():
    said = Said(RUN)
    said.output("a\0b\ud800c")
    said.annotate({"n\0": "\udfff"})
    said.progress(1, None, "\0")
    report = said.onto(REPORT)
    for text in (report.log, *report.annotations, *report.annotations.values()):
        assert "\0" not in text
        text.encode()
    assert report.progress.message == "\ufffd"


def test_notes_are_plain_few_and_short():
    said = Said(RUN)
    said.annotate({"ok": True, "n": 3, "big": 2**70, "share": 0.5, "odd": float("nan")})
    said.annotate({"object": START, "long": "x" * 9999, "n": 4})
    notes = said.onto(REPORT).annotations
    assert (notes["ok"], notes["n"], notes["share"]) == (True, 4, 0.5)
    assert (notes["big"], notes["odd"], notes["object"]) == (str(2**70), "nan", str(START))
    assert len(notes["long"]) < 600
    said.annotate({f"note{n}": n for n in range(100)})
    assert len(said.onto(REPORT).annotations) == 20


def test_words_are_new_once():
    said = Said(RUN)
    assert said.new_words() is None
    said.output("one")
    assert said.new_words() == ("one", {})
    assert said.new_words() is None
    said.annotate({"a": 1})
    assert said.new_words() == ("one", {"a": 1})


def test_threads_lose_no_line():
    said = Said(RUN)
    threads = [
        threading.Thread(target=lambda: [said.output("x") for _ in range(2000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said.onto(REPORT).log.split("\n")) == 8000


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_the_function_forks_says_nothing_and_waits_for_no_lock():
    said = Said(RUN)
    with said._lock:  # as the scribe may hold it
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            said.output("in the child")
            said.annotate({"child": 1})
            said.progress(1, 2, "")
            os._exit(0 if said.new_words() is said.new_progress(START) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert said.new_words() is None
