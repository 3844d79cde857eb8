"""What becomes of a transaction whose commit was never answered: it is read back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ._store import jobs as job_rows
from ._store import runs as run_rows
from .errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from ._store import Store
    from .model import Run


T = TypeVar("T")


class Doubt:
    """Writes runs, and remembers them until the commit is answered. One thread at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: list[Run] = []

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Enter a transaction; what it `wrote` is in doubt if it raises."""
        with self._store.write() as connection:
            yield connection
        self._written.clear()

    def wrote(self, runs: list[Run]) -> list[Run]:
        """Note, before the commit, rows as they are now; return them."""
        self._written += runs
        return runs

    def settle(self) -> list[Run]:
        """Return what is in doubt and on record, nobody having changed it since.

        The rows of the jobs are locked first: the server may still be at the commit that was
        cut off, and runs that it inserts cannot be seen, let alone waited for, until it ends.
        """
        if not self._written:
            return []
        with self._store.write() as connection:
            jobs = {run.job_id for run in self._written}
            job_rows.lock(connection, jobs, skip_locked=False)
            found = run_rows.unchanged(connection, self._written)
        self._written.clear()
        return found


def twice(action: Callable[[], T]) -> T:
    """Do it again if the database failed: the action finds what its first try has committed."""
    try:
        return action()
    except StoreError:
        return action()
