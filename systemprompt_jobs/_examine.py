"""What `doctor` looks at: one small function for each kind of finding."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ._clock import boot_id
from ._store import runs as run_rows
from ._whose import zone_data_version
from .errors import JobsError, StoreError, StoreUnusableError, text_of
from .model import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from ._context import Resources
    from ._store import Store
    from .interfaces import Clock
    from .model import NodeOverview, Orphan

_MAX_OFFSET = timedelta(seconds=1)
_YEAR = re.compile(r"20\d\d")
_OLD_YEARS = 2

_UNUSABLE = (
    "see `database` in the configuration; a schema that is missing or old is made by "
    "`systemprompt infra jobs db upgrade`"
)
_WAITS = (
    "once this is mended schedulers go on by themselves; `database` in the configuration says "
    "which one they use"
)


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at."""

    store: Store
    resources: Resources
    clock: Clock
    schedulers: Callable[[], Sequence[NodeOverview]]
    orphans: Callable[[], Sequence[Orphan]] = tuple
    lease: timedelta = timedelta(seconds=30)
    configuration: Sequence[Path] = ()


def examine(patient: Patient) -> Iterator[Finding]:
    """Yield all findings. Nothing stays changed: no file is made, nothing is migrated."""
    database = _database(patient)
    yield database
    if database.ok:
        yield _recording(patient)
        yield _clock(patient)
        yield _schedulers(patient)
        yield _orphans(patient)
        yield _leases(patient)
    yield _files(patient)
    yield _zone_data(patient.clock.now(), zone_data_version())
    for look in (_databases, _services):
        yield from look(patient)


def _database(patient: Patient) -> Finding:
    store, subject = patient.store, "scheduler's database"
    try:
        if not store.exists:
            return Finding(
                subject,
                ok=False,
                said=f"{store.label} {'does not exist' if store.one_host else 'has no tables'} yet",
                remedy="start the scheduler once: systemprompt infra jobs serve",
            )
        store.check()
    except StoreError as error:
        return Finding(
            subject,
            ok=False,
            said=str(error),
            remedy=_UNUSABLE if isinstance(error, StoreUnusableError) else _WAITS,
        )
    return Finding(subject, ok=True, said=f"{store.label} is reachable and migrated")


def _recording(patient: Patient) -> Finding:
    """Look whether the database can be written: a full disk can still be read."""
    try:
        patient.store.check_writing()
    except StoreError as error:
        return Finding("recording", ok=False, said=str(error), remedy=_WAITS)
    return Finding("recording", ok=True, said="a change can be written to the database")


def _clock(patient: Patient) -> Finding:
    clock = patient.store.clock(patient.clock)
    with patient.store.read() as connection:
        clock.read(connection)
    offset = clock.offset
    if offset is None:
        return Finding("clock", ok=True, said="this host's clock decides what is due")
    seconds = offset.total_seconds()
    return Finding(
        "clock",
        ok=abs(offset) <= _MAX_OFFSET,
        said=f"{abs(seconds):.3f} s {'ahead of' if seconds > 0 else 'behind'} the database's",
        remedy="" if abs(offset) <= _MAX_OFFSET else "keep this host's clock right, e.g. by NTP",
    )


def _schedulers(patient: Patient) -> Finding:
    if live := patient.schedulers():
        return Finding("schedulers", ok=True, said=f"live: {', '.join(node.id for node in live)}")
    return Finding(
        "schedulers",
        ok=False,
        said="none is live, so no tick runs",
        remedy="start one: systemprompt infra jobs serve",
    )


def _orphans(patient: Patient) -> Finding:
    if not (orphans := patient.orphans()):
        return Finding("orphaned jobs", ok=True, said="none")
    names = ", ".join(orphan.id for orphan in orphans)
    return Finding(
        "orphaned jobs",
        ok=False,
        said=f"no live scheduler and no plugin here provides {names}",
        remedy="install their plugin again, or name the job's former name in `aliases=`; a job that "
        "is gone for good does no harm, and its history is forgotten in time",
    )


def _leases(patient: Patient) -> Finding:
    """Look for runs that should have been rescued long ago: it takes 5/3 of a lease."""
    store, clock = patient.store, patient.store.clock(patient.clock)
    with store.read() as connection:
        clock.read(connection)
        long_ago = clock.lease_now() - 2 * patient.lease // timedelta(microseconds=1)
        stuck = run_rows.expired(connection, long_ago, boot_id() if store.one_host else "")
    if not stuck:
        return Finding("leases", ok=True, said="no run is held by a node that has died")
    runs = ", ".join(str(run_id) for run_id, _, _ in stuck)
    alive = "look into the log of the live ones: they should have settled them"
    return Finding(
        "leases",
        ok=False,
        said=f"held by nodes that have died: run {runs}",
        remedy=alive if patient.schedulers() else "start a scheduler: it settles them in a minute",
    )


def _files(patient: Patient) -> Finding:
    """Look who may read what is recorded and who may write what decides which code loads."""
    own = [patient.store.url.database or ""] if patient.store.one_host else []
    private = [Path(f"{file}{end}") for file in own for end in ("", "-wal", "-shm")]
    wrong = [f"chmod 600 {file}" for file in private if _mode(file) & 0o077]
    wrong += [f"chmod o-w {file}" for file in patient.configuration if _mode(file) & 0o002]
    if not wrong:
        return Finding("file permissions", ok=True, said="nobody else can read or change them")
    said = "others may read the database, or write the configuration"
    return Finding("file permissions", ok=False, said=said, remedy="; ".join(wrong))


def _mode(file: Path) -> int:
    return file.stat().st_mode if file.exists() else 0


def _zone_data(now: datetime, version: str) -> Finding:
    """Look whether rules of time zones may be out of date: some change every year."""
    found = _YEAR.search(version)
    said = f"version {version.removeprefix('# version ')}"
    if found is None or now.year - int(found[0]) < _OLD_YEARS:
        return Finding("time zone data", ok=True, said=said)
    remedy = "update the system's tzdata package, or `pip install --upgrade tzdata`"
    return Finding("time zone data", ok=False, said=f"{said} is years old", remedy=remedy)


def _databases(patient: Patient) -> Iterator[Finding]:
    for name in sorted(patient.resources.names):
        subject, remedy = f"database {name!r}", f"see `databases.{name}` in the configuration"
        yield _tried(subject, partial(_connect, patient.resources, name), remedy)


def _connect(resources: Resources, name: str) -> str:
    engine = resources.engine(name)
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not Path(file).exists():
        if not Path(file).parent.is_dir():  # connecting would make the file
            raise FileNotFoundError(f"there is no folder {Path(file).parent}")
        return f"{file} does not exist yet; it is made when it is first used"
    with engine.connect():
        return f"{engine.url.render_as_string(hide_password=True)} is reachable"


def _services(patient: Patient) -> Iterator[Finding]:
    """Look at the services that plugins registered with a `ping`, each in its own container."""
    with patient.resources.container() as services:
        pings = services.get_pings()
    for ping in sorted(pings, key=lambda ping: ping.name):
        remedy = "its plugin registered this check: register_services(…, ping=…)"
        yield _tried(f"service {ping.name}", partial(_ping, patient, ping.name), remedy)


def _ping(patient: Patient, name: str) -> str:
    with patient.resources.container() as services:
        (ping,) = (ping for ping in services.get_pings() if ping.name == name)
        if ping.is_async:
            asyncio.run(ping.aping())
        else:
            ping.ping()
    return "answers"


def _tried(subject: str, look: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(subject, ok=True, said=look())
    except JobsError as error:
        return Finding(subject, ok=False, said=str(error), remedy=remedy)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a driver or a plugin's check does
        return Finding(subject, ok=False, said=text_of(error), remedy=remedy)
