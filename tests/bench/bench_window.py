"""What does a kill -9 lose, and what is it worth? The gate window at 0, 50 and 200 ms of starts.

    python -m tests.bench.bench_window [KILLS]

500 jobs are due at each second, ten workers run them, SQLite records them. A process is killed in
the middle of a second's work; the runs that are on record as running and had not begun are what
will be `lost` without having started. Each figure is the median, and in brackets the worst.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

JOBS = 500
WINDOWS_MS = (0, 50, 200)


def schedule(root: str, window_ms: int) -> None:
    """Be the process that will be killed."""
    from systemprompt_jobs import JobContext, JobExtension, Runtime, _record, job

    _record.WINDOW_S = window_ms / 1000
    log = os.open(Path(root, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def make(number: int):
        def note(ctx: JobContext) -> None:
            os.write(log, f"{ctx.run.id} {time.time() % 1}\n".encode())

        return job(name=f"j{number}", schedule="* * * * * *")(note)

    class Many(JobExtension):
        def jobs(self):
            return [make(number) for number in range(JOBS)]

    with Runtime(root, plugins=[Many()], environ={"SYSTEMPROMPT_PLUGINS": ""}):
        time.sleep(60)


def kill_once(window_ms: int) -> tuple[int, float]:
    """Return what was lost unstarted, and when in its second the middle one of the runs began."""
    with tempfile.TemporaryDirectory() as root:
        Path(root, "profile.yaml").write_text("scheduler: {workers: 10}\n", "utf-8")
        command = [sys.executable, "-m", "tests.bench.bench_window", "child", root, str(window_ms)]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = Path(root, "log")
        enough = random.uniform(2.2, 2.8) * JOBS
        while not log.exists() or log.read_bytes().count(b"\n") < enough:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
        lines = [line.split() for line in log.read_text("ascii").splitlines()]
        began = {int(run) for run, _ in lines}
        with closing(sqlite3.connect(Path(root, "var", "jobs.db"))) as connection:
            running = connection.execute("SELECT id FROM jobs_run WHERE state = 'running'")
            lost = {run for (run,) in running} - began
        return len(lost), median(float(when) for _, when in lines[JOBS : 2 * JOBS])


def main(kills: int) -> None:
    """Print the table."""
    print("| window | lost and never started | the middle start of 500, ms after the tick |")
    print("|---|---|---|")
    for window_ms in WINDOWS_MS:
        lost, delays = zip(*(kill_once(window_ms) for _ in range(kills)), strict=True)
        delay = f"{1000 * median(delays):.0f} ({1000 * max(delays):.0f})"
        print(f"| {window_ms} ms | {median(lost):g} ({max(lost)}) | {delay} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        schedule(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
