"""Make a demo project: a real application database with expired and live rows, and its YAML.

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


def main(folder: Path) -> None:
    """Write the project, with a fresh database each time."""
    (folder / "services" / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "var").mkdir(exist_ok=True)
    (folder / "services" / "scheduler" / "config.yaml").write_text(CONFIG, encoding="utf-8")
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
