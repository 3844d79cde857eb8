"""The delay that spreads jobs which share a tick."""

from __future__ import annotations

from datetime import datetime, timedelta

from ._instants import at_or_before

_MICROSECOND = timedelta(microseconds=1)


def splay(job_id: str, tick: datetime, limit: timedelta) -> timedelta:
    """Return a delay of 0 <= delay < `limit`, the same on every node for one job and tick."""
    if limit <= timedelta():
        return timedelta()
    import hashlib

    seed = hashlib.blake2b(f"{job_id}\0{at_or_before(tick)}".encode(), digest_size=8).digest()
    return timedelta(microseconds=int.from_bytes(seed) % (limit // _MICROSECOND))
