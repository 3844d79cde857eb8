"""What `doctor` looks at: one small function for each kind of finding."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import JobsError, StoreError, text_of
from .model import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ._context import Resources
    from ._store import Store
    from .interfaces import Clock
    from .model import NodeOverview

_MAX_OFFSET = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at."""

    store: Store
    resources: Resources
    clock: Clock
    schedulers: Callable[[], Sequence[NodeOverview]]


def examine(patient: Patient) -> Iterator[Finding]:
    """Yield all findings. Nothing is changed: no file is made, nothing is migrated."""
    database = _database(patient)
    yield database
    if database.ok:
        yield _clock(patient)
        yield _schedulers(patient)
    for look in (_databases, _services):
        yield from look(patient)


def _database(patient: Patient) -> Finding:
    store, subject = patient.store, "scheduler's database"
    try:
        if not store.exists:
            return Finding(
                subject,
                ok=False,
                said=f"{store.label} does not exist yet",
                remedy="start the scheduler once: systemprompt infra jobs serve",
            )
        store.check()
    except StoreError as error:
        return Finding(
            subject, ok=False, said=str(error), remedy="see `database` in the configuration"
        )
    return Finding(subject, ok=True, said=f"{store.label} is reachable and migrated")


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
