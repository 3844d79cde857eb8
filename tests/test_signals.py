"""Signals reach a process whatever its main thread waits for, and not through a job's children."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PATIENCE_S = 60
CATCH = """
import os, queue, signal, threading
from systemprompt_jobs.builtin.signals import catch_signals
signals = catch_signals(signal.SIGHUP)
wanted = queue.SimpleQueue()
def send():  # to this thread, which mostly works while the main one waits already
    while True:
        signal.pthread_kill(threading.get_ident(), wanted.get())
threading.Thread(target=send, daemon=True).start()
"""


def process(code):
    command = [sys.executable, "-c", CATCH + code]
    return subprocess.run(command, timeout=PATIENCE_S, capture_output=True, text=True, check=False)


def test_a_signal_wakes_a_main_thread_that_it_did_not_interrupt():
    ended = process(
        "for _ in range(200):\n wanted.put(signal.SIGHUP)\n assert signals.get() == signal.SIGHUP\n"
        "wanted.put(signal.SIGTERM)\nassert signals.get() == signal.SIGTERM\nprint('heard')"
    )
    assert (ended.stdout, ended.stderr) == ("heard\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_ends_the_process_whatever_the_main_thread_does(number):
    ended = process(
        f"wanted.put({number.value})\nsignals.get()\nwanted.put({number.value})\n"
        "stuck = threading.Lock(); stuck.acquire(); stuck.acquire()"
    )
    assert ended.returncode == 130


def test_other_signals_of_the_process_are_not_ours():
    ended = process(
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\nos.kill(os.getpid(), signal.SIGHUP)\n"
        "print(signals.get() == signal.SIGHUP, signals.empty())"
    )
    assert ended.stdout == "True True\n"


@pytest.mark.parametrize(
    "where", ["job()", "t = threading.Thread(target=job); t.start(); t.join()"]
)
def test_the_end_of_a_forked_child_is_its_own(where):
    ended = process(
        "def job():\n"
        " child = os.fork()\n"
        " if not child: signal.pause()\n"
        " os.kill(child, signal.SIGTERM)\n"
        " print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signals.empty())\n" + where
    )
    assert ended.stdout == f"{-signal.SIGTERM} True\n"
