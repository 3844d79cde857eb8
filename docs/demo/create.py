"""Make a demo project: a real application database with expired and live rows, jobs, and its YAML.

Usage: python docs/demo/create.py FOLDER
"""

from __future__ import annotations

import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

CONFIG = """\
# What runs here. The plugins' authors give defaults; this file is the operators' word.
scheduler:
  databases:
    default: sqlite:///var/app.db
  local_plugins: [jobs.py]
  jobs:
    - extension: hello
      job: hello
      enabled: true
      schedule: "*/10 * * * * *"      # the author says every minute
      silence: [five-fields]          # yes, every ten seconds: `check` need not ask
      parameters: {name: operator}
    - extension: maintenance
      job: cleanup
      enabled: true                   # listed and enabled: also runs at start-up
      enforce: true                   # without it, rows are counted and not deleted
      schedule: "*/30 * * * * *"
      silence: [five-fields]
      parameters:
        tables:
          - {table: sessions, column: expires_at}
          - {table: login_attempts, column: at, older_than: 30d}
"""

JOBS = '''\
"""Jobs that a page worth looking at needs: one fails, one is slow, one is in its own way."""

from systemprompt_jobs import job


@job(schedule="20 * * * * *", max_attempts=2, retry_delay="5s", repeatable=True)
def import_prices(ctx):
    """Fetch the prices; the shop answers only to the second attempt."""
    ctx.log.info("asking the shop", attempt=ctx.run.attempt)
    if ctx.run.attempt == 1:
        raise ConnectionError("shop.example.org does not answer")
    return "412 prices"


@job(schedule="*/20 * * * * *", silence=["five-fields"])
def charge_cards(ctx):
    """Fail each time, so that there is an error, a traceback and a log to look at."""
    ctx.log.warning("the bank asks for a newer certificate")
    raise PermissionError("the certificate of pay.example.org has expired")


@job(schedule="*/15 * * * * *", silence=["five-fields"])
def build_index(ctx):
    """Take 20 s every 15 s, so that every other tick is skipped: the one before still runs."""
    for page in range(20):
        ctx.progress(page + 1, 20, "pages")
        ctx.sleep(1)
    return "20 pages"


@job(schedule="*/30 * * * * *", silence=["five-fields"])
def send_newsletter():
    """Be paused: the demo pauses this job until somebody resumes it."""
'''


def main(folder: Path) -> None:
    """Write the project, with a fresh database each time."""
    (folder / "services" / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "var").mkdir(exist_ok=True)
    (folder / "services" / "scheduler" / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "jobs.py").write_text(JOBS, encoding="utf-8")
    (folder / "jobs.py").chmod(0o644)  # code that others may write to is refused
    database = folder / "var" / "app.db"
    database.unlink(missing_ok=True)
    expired, live = fill(database, datetime.now(UTC))
    print(f"demo: {database} holds {expired} expired and {live} live rows in two tables")
    print("demo: the start-up run of maintenance:cleanup deletes exactly the expired ones")


def fill(database: Path, now: datetime) -> tuple[int, int]:
    """Create the application's tables; return how many rows have expired and how many live."""
    day = timedelta(days=1)
    sessions = [(f"user{n}", str(now + (n - 500) * day / 100 - day / 200)) for n in range(1000)]
    attempts = [(f"user{n}", str(now - n * day - day / 2)) for n in range(60)]
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, user, expires_at TEXT)")
        connection.execute("CREATE TABLE login_attempts (id INTEGER PRIMARY KEY, user, at TEXT)")
        connection.executemany("INSERT INTO sessions (user, expires_at) VALUES (?, ?)", sessions)
        connection.executemany("INSERT INTO login_attempts (user, at) VALUES (?, ?)", attempts)
    connection.close()
    return 501 + 30, 499 + 30


if __name__ == "__main__":
    main(Path(sys.argv[1]))
