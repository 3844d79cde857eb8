"""The frozen values that the stages hand on, Job → Plan → Run → Report, and what queries answer."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar

from .secrets import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from .interfaces import Schedule

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

EMPTY: Mapping[str, Any] = MappingProxyType({})


class State(StrEnum):
    """Where a run stands. See `docs/explanation/run-states.md` for the picture."""

    PENDING = "pending"
    CLAIMED = "claimed"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    SKIPPED = "skipped"
    MISSED = "missed"


RETRYING = "retrying"
"""How a run is shown that waits for its next attempt."""


class Trigger(StrEnum):
    """Why there is a run."""

    SCHEDULE = "schedule"
    STARTUP = "startup"
    MANUAL = "manual"


class Overlap(StrEnum):
    """What a run does when the job's previous one still runs."""

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"


class CatchUp(StrEnum):
    """Which of the ticks that went by without a scheduler still run."""

    LATEST = "latest"
    NONE = "none"
    ALL = "all"


LintCode = Literal[
    "never-fires",
    "every-second",
    "five-fields",
    "daylight-saving",
    "herd",
    "long-timeout",
    "retries",
    "dry-run",
    "no-effect",
]
"""What `check` finds suspicious in a valid configuration; see `docs/reference/commands.md`."""


_HIDDEN = ("__module__", "__doc__", "__annotations__")
"""What a job would have of its class, were it not set."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Job(Generic[P, R_co]):
    """What a plugin declares: a function and its author's defaults.

    Made by `@job`. It is called like the function it wraps, hashed by identity and pickled by
    reference; nothing about it can change.
    """

    function: Callable[P, R_co]
    name: str
    description: str = ""
    schedule: str | Schedule = ""
    run_on_startup: bool = False
    tags: tuple[str, ...] = ()
    timezone: str | None = None
    enabled: bool = True
    parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    aliases: tuple[str, ...] = ()
    overlap: Overlap = Overlap.SKIP
    splay: str | timedelta = "0s"
    catch_up: CatchUp = CatchUp.LATEST
    catchup_window: str | timedelta = "24h"
    silence: tuple[str, ...] = ()
    timeout: str | timedelta = "none"
    max_attempts: int = 1
    retry_delay: str | timedelta = "10s"
    retry_factor: float = 2.0
    retry_max_delay: str | timedelta = "1h"
    retry_past_next_tick: bool = False
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()
    repeatable: bool = False
    concurrency: Mapping[str, Any] | None = None
    executor: str | None = None

    def __post_init__(self) -> None:
        # What functools.update_wrapper does, past the frozen __setattr__; see __getattr__.
        for attribute in _HIDDEN:
            if hasattr(self.function, attribute):
                object.__setattr__(self, attribute, getattr(self.function, attribute))
        if self.is_async:
            for attribute, mark in _coroutine_mark().items():
                object.__setattr__(self, attribute, mark)

    if not TYPE_CHECKING:  # it would let every name pass

        def __getattr__(self, name: str) -> Any:
            # Not stored: Python shares the keys of objects with up to 30 attributes, and a job
            # with more takes five times the memory.
            if name == "__wrapped__":
                return self.function
            if name in functools.WRAPPER_ASSIGNMENTS:
                return getattr(self.function, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:  # noqa: D102  # the function's
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Job {self.name!r} from {self.place}>"

    def __reduce__(self) -> str:
        return self.function.__qualname__

    @property
    def is_async(self) -> bool:
        """Whether the function is an `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def place(self) -> Place:
        """Where the function is defined."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        if code is None:
            return Place()
        return _place(code.co_filename, code.co_firstlineno)


@functools.lru_cache(maxsize=4096)
def _place(file: str, line: int) -> Place:
    return Place(Path(file), line)


def _coroutine_mark() -> dict[str, Any]:
    """Return the attribute by which Python knows a coroutine function."""
    if sys.version_info >= (3, 12):  # it cannot mark a frozen Job itself
        return vars(inspect.markcoroutinefunction(lambda: None))
    import asyncio.coroutines  # what asyncio.iscoroutinefunction looks at before 3.12

    return {"_is_coroutine": asyncio.coroutines._is_coroutine}  # type: ignore[attr-defined]  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Place:
    """A file and a line (from 1), as far as they are known."""

    file: Path | None = None
    line: int | None = None

    def __str__(self) -> str:
        if self.file is None:
            return "unknown place"
        return str(self.file) if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: who, where, what, and what would be right.

    `culprit` is what suffers from it: an extension (`my-extension`), a job
    (`my-extension:cleanup`) or a setting's path (`scheduler.jobs[2].schedule`). `code` is set
    on what is valid and only looks wrong: the job's `silence` may name it. It is `observer` where
    a lifecycle hook raised.
    """

    culprit: str
    reason: str
    place: Place = Place()
    remedy: str = ""
    code: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place.file else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        code = f" [{self.code}]" if self.code else ""
        return f"{where}{self.culprit}: {self.reason}{remedy}{code}"


@dataclass(frozen=True, slots=True)
class Extension:
    """A plugin: where its jobs came from.

    `distribution` and `version` are empty for local plugins and `--plugin` modules that no
    installed distribution provides. `source` says how it was found: `installed`, `local`,
    `command line`, or `given` where `Runtime` was handed the plugin itself.
    """

    name: str
    module: str
    distribution: str = ""
    version: str = ""
    source: str = "installed"


@dataclass(frozen=True, slots=True)
class CollectedJob:
    """A job together with the extension that brought it."""

    extension: Extension
    job: Job[..., Any]

    @property
    def id(self) -> str:
        """`extension:job`."""
        return f"{self.extension.name}:{self.job.name}"


@dataclass(frozen=True, slots=True)
class Collection:
    """All that the plugins brought, and what is wrong with them.

    `extensions` includes the degraded ones (a plugin is loaded whole or not at all);
    `blocked` names what `--no-plugin` or `SYSTEMPROMPT_PLUGINS` kept out; `degraded` maps an
    extension's name or a job id to the reason.
    """

    extensions: tuple[Extension, ...] = ()
    jobs: tuple[CollectedJob, ...] = ()
    blocked: tuple[str, ...] = ()
    degraded: Mapping[str, Problem] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True)
class Source:
    """One layer's word on a setting.

    `layer` is `job` (the decorator), `config.yaml`, `profile.yaml`, `environment`,
    `command line` or `default`.
    """

    value: Any
    layer: str
    place: Place = Place()

    @property
    def by(self) -> str:
        """Who said it, short: `default`, `config.yaml:3` or `@job at my_jobs.py:12`."""
        if self.place.file is None:
            return self.layer
        where = f"{self.place.file.name}:{self.place.line}"
        return f"@job at {where}" if self.layer == "job" else where

    def text(self, name: str) -> str:
        """Return the value as a file would have it; it is masked where `name` or it is secret."""
        value = masked(self.value, name)
        if value is None:
            return "none"
        if isinstance(value, str) and value:
            return value
        return json.dumps(value, default=str, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a run is started, and how long it waits after a failure.

    The wait is `delay` after the first attempt, `factor` times as long after each further one,
    at most `max_delay`. `retry_on` and `give_up_on` are names of exception types, dotted unless
    built in; with an empty `retry_on` every failure is tried again.
    """

    max_attempts: int = 1
    delay: timedelta = timedelta(seconds=10)
    factor: float = 2.0
    max_delay: timedelta = timedelta(hours=1)
    past_next_tick: bool = False
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` runs of all jobs with this `key` at once, on all nodes together."""

    key: str
    limit: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A job after configuration: every effective value and who set it.

    `sources` maps a setting to its layers, lowest first, so the last one is in force.
    `problem` is set on a job that is degraded: it is listed, and never run.
    `schedule` is None for a job that runs by hand or at start-up only.
    `parameters` are merged and checked, as plain values (not yet converted).
    `executor` names the pool that its function runs in.
    """

    id: str
    extension: Extension
    job: Job[..., Any]
    enabled: bool
    schedule: Schedule | None
    timezone: str
    starts_up: bool
    overlap: Overlap
    splay: timedelta
    enforce: bool
    parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    config: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    listed: bool = False
    catch_up: CatchUp = CatchUp.LATEST
    catchup_window: timedelta = timedelta(hours=24)
    silence: tuple[str, ...] = ()
    timeout: timedelta | None = None
    retry: RetryPolicy = RetryPolicy()
    concurrency: Concurrency | None = None
    executor: str = "default"
    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=lambda: EMPTY)
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of a job that a start would change in the database, in words.

    `setting` is `job` where the job as a whole is new or gone; `now` or `then` is empty there.
    """

    job_id: str
    setting: str
    now: str
    then: str


@dataclass(frozen=True, slots=True)
class Node:
    """One scheduler process. `id` is `host:pid:boot`, with a random `boot`."""

    id: str
    host: str
    pid: int
    boot: str
    version: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a function says it is: `done` of `total` (None: nobody knows), in its own units.

    `at` is when the node wrote it down, at most a second after it was said.
    """

    done: float
    total: float | None
    message: str
    at: datetime


@dataclass(frozen=True)  # without slots, for `changed`
class Run:
    """One intended execution, or one stretch of ticks that never ran.

    Instants are aware UTC. `tick` is None for start-up runs and
    those by hand, unless they were given one; `due` is when the run may
    start, which for a tick is the tick plus its splay. A `missed` row, and a
    `skipped` one that was never claimed, covers `count` ticks from `tick` to `last_tick`.
    `attempt` counts from 1 once the function was started. `fence` grows with each claim.
    `policy` is what any node needs to try it again and to limit it, as plain values, frozen
    when the run was claimed; None for a run that is started once and not limited.
    `pool` is where the claiming node runs it. `parent` is the run that this one repeats.
    `progress` is the last that this attempt said.
    """

    id: int
    job_id: str
    trigger: Trigger
    state: State
    tick: datetime | None = None
    due: datetime | None = None
    last_tick: datetime | None = None
    count: int = 1
    reason: str = ""
    attempt: int = 0
    max_attempts: int = 1
    fence: int = 1
    node: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    enforce: bool = False
    overlap: Overlap = Overlap.SKIP
    policy: Mapping[str, Any] | None = None
    distribution: str = ""
    version: str = ""
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    message: str = ""
    processed: int | None = None
    failed: int | None = None
    error: str = ""
    pool: str = ""
    parent: int | None = None
    progress: Progress | None = None

    @property
    def extension(self) -> str:
        """The extension's name."""
        return self.job_id.partition(":")[0]

    @property
    def job(self) -> str:
        """The job's short name."""
        return self.job_id.partition(":")[2]

    @property
    def status(self) -> str:
        """The state, or `retrying` while the run waits for its next attempt."""
        waits = self.attempt and self.state in {State.PENDING, State.CLAIMED, State.DISPATCHED}
        return RETRYING if waits else self.state

    @property
    def duration(self) -> timedelta | None:
        """How long the last attempt took; None while it has not ended."""
        if self.started is None or self.finished is None:
            return None
        return self.finished - self.started


def changed(run: Run, pairs: Iterable[tuple[str, Any]] = (), /, **values: Any) -> Run:
    """Return a run with other values of these fields, as `dataclasses.replace` does.

    Every start and end of a run needs one: this takes a tenth of the time.
    """
    new, fields = object.__new__(Run), vars(run) | values
    fields.update(pairs)
    object.__setattr__(new, "__dict__", fields)
    return new


@dataclass(frozen=True, slots=True)
class Report:
    """What an attempt ended in.

    `error` is `module.Type: text`, `traceback` the full text; both are empty on success.
    `processed` and `failed` count items, None where the job did not say. `stray`: the function
    still runs, in a thread that cannot be stopped, and keeps the run's slots until it ends.
    `error_types` names the error's class and its bases, the nearest first. `retry_after` is how
    long until the run is tried again, None if it is not; while that is undecided, what the job
    asked for. `log` is the tail of what it logged, `annotations` what plugins noted about the
    attempt.
    """

    outcome: State
    started: datetime
    finished: datetime
    message: str = ""
    processed: int | None = None
    failed: int | None = None
    error: str = ""
    traceback: str = ""
    stray: bool = False
    error_types: tuple[str, ...] = ()
    retry_after: timedelta | None = None
    progress: Progress | None = None
    log: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration(self) -> timedelta:
        """How long the attempt took."""
        return self.finished - self.started


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a runtime works (`live`) and can start runs (`ready`), and why not."""

    live: bool
    ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observers:
    """How far the thread is that calls this process's lifecycle hooks.

    `waiting` calls are in its queue; `dropped` did not fit into it. `calling` is the observer at
    work, as `plugin: hook()`, empty where there is none, and `busy` how long it has been.
    """

    waiting: int = 0
    dropped: int = 0
    calling: str = ""
    busy: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What of one job has not ended: how many runs.

    `pending` wait for a node, `retrying` for their next attempt, `claimed` to be started by the
    node that has claimed them, `dispatched` to be started by a worker; `running` are under way.
    Nodes have leases on `held` of all these; of `expired` the lease has run out: they wait for
    rescue. `since` is when the longest waiting of the pending ones was due.
    """

    job_id: str
    pending: int = 0
    retrying: int = 0
    claimed: int = 0
    dispatched: int = 0
    running: int = 0
    held: int = 0
    expired: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job will run or not, or what became of one tick, in sentences.

    `run` is the row that covers the tick, None where none was asked for or none is recorded.
    """

    plan: Plan
    sentences: tuple[str, ...]
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class PauseOverview:
    """A pause in force: since when, until when (None: until somebody resumes it), why and by whom."""

    job_id: str
    since: datetime
    until: datetime | None
    note: str
    who: str


@dataclass(frozen=True, slots=True)
class Superseding:
    """The plan that is in force instead of this machine's, and a live node that has it."""

    distribution: str
    version: str
    node: str
    schedule: str

    def __str__(self) -> str:
        origin = f"{self.distribution} {self.version}".strip() or "another plan"
        return f"superseded by {origin} on node {self.node}"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was forgotten, or would be: it ended before `before`. `jobs` counts runs by job."""

    before: datetime
    jobs: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    nodes: int = 0
    audits: int = 0

    @property
    def runs(self) -> int:
        """How many runs."""
        return sum(self.jobs.values())

    def __add__(self, other: Pruned) -> Pruned:
        jobs = Counter(self.jobs)
        jobs.update(other.jobs)
        return Pruned(self.before, jobs, self.nodes + other.nodes, self.audits + other.audits)

    def __bool__(self) -> bool:
        return bool(self.jobs or self.nodes or self.audits)


@dataclass(frozen=True, slots=True)
class Backfill:
    """The ticks of a job from `start` to `end` that run after all, or would, oldest first.

    `more`: there are others beyond the limit. `strange` counts missed ticks of another schedule,
    which are left alone. `runs` are those handed over; none in a dry run.
    """

    job_id: str
    start: datetime
    end: datetime
    ticks: tuple[datetime, ...]
    more: bool = False
    strange: int = 0
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptOverview:
    """One call of a run's function; `finished` and `outcome` are None while it runs.

    `log` is the tail of what it logged, written down every second while it runs; `log_cut` is
    how many lines were logged before it.
    """

    run_id: int
    fence: int
    number: int
    node: str
    started: datetime
    finished: datetime | None = None
    outcome: State | None = None
    message: str = ""
    error: str = ""
    traceback: str = ""
    annotations: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    log: str = ""
    log_cut: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What `doctor` found out about one thing, and what to do about it unless it is well."""

    subject: str
    ok: bool
    said: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class JobOverview:
    """A job's plan, its next tick (None: it has none) and its newest run, if any.

    `held_until` is set where a clock was wrong: the job's ticks are settled up to that time, more
    than an hour from now. Where `superseded` says that another plan is in force, the tick is that
    plan's.
    """

    plan: Plan
    next_tick: datetime | None
    last_run: Run | None
    pause: PauseOverview | None = None
    held_until: datetime | None = None
    superseded: Superseding | None = None


@dataclass(frozen=True, slots=True)
class Orphan:
    """A job in the database that neither a live node nor this machine has."""

    id: str
    last_run: Run | None


@dataclass(frozen=True, slots=True)
class NodeOverview:
    """A scheduler node, or by its `kind` a `worker`; `heartbeat`: when it last said that it lives.

    `state` is `live`, `left` (by itself) or `died`. `clock_offset` is how far its clock is ahead
    of the database's, None where one clock is all there is. `jobs` is how many jobs it has,
    `lacks` those that other live nodes have and it has not. `strays` are threads that outlived
    their timeout; a pool with as many as it has workers starts nothing until they end. `problem`
    is why it has refused the configuration that it was last told to read.
    """

    id: str
    version: str
    workers: int
    started: datetime
    heartbeat: datetime
    state: str = "live"
    stopped: datetime | None = None
    clock_offset: timedelta | None = None
    jobs: int = 0
    lacks: tuple[str, ...] = ()
    strays: int = 0
    problem: str = ""
    kind: str = "scheduler"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which job or thing."""

    id: int
    at: datetime
    who: str
    action: str
    subject: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class JobStats:
    """How a job did in a stretch of time.

    `counts` holds runs and ticks by state. `took` is how long the function ran, `late` how long
    after it might have started a tick did, each as (p50, p95): half of the runs, and 95 in 100,
    stay at or below.
    `last` are the state and duration of the newest runs, oldest first.
    """

    job_id: str
    counts: Mapping[str, int]
    took: tuple[timedelta, timedelta] | tuple[None, None]
    late: tuple[timedelta, timedelta] | tuple[None, None]
    last: tuple[tuple[State, timedelta | None], ...]

    @property
    def runs(self) -> int:
        """How many have started and ended."""
        never = ("pending", "claimed", "dispatched", "running", "skipped", "missed")
        return sum(number for state, number in self.counts.items() if state not in never)

    @property
    def success_rate(self) -> float | None:
        """Which part of the runs has succeeded, None where there was none."""
        return self.counts.get(State.SUCCEEDED, 0) / self.runs if self.runs else None

    strays: int = 0


@dataclass(frozen=True, slots=True)
class Glance:
    """A run as a strip or a chart shows it, without its texts and parameters.

    `at` is its tick, else its start, else when it was recorded; `late` how long after it might
    have started a tick did.
    """

    id: int
    state: State
    reason: str
    count: int
    attempt: int
    at: datetime
    duration: timedelta | None
    late: timedelta | None


@dataclass(frozen=True, slots=True)
class SchedulerOverview:
    """The scheduler at a glance.

    `orphaned` are jobs of the database that no plugin provides any more.
    `database` is the URL without its password. `counts` are the runs created in the last
    24 hours by state. `running` and `troubled` (failed, lost, missed …, and not what its
    job has skipped) are newest first.
    `pauses` and `held` (job id → the time it waits for) include jobs that are not installed.
    `waiting` are the ticks and runs that are due and that no node has taken, of jobs that are
    installed here, the oldest of them since `waiting_since`. `problem` is why nothing can be
    recorded, and is looked for only while no node is live.
    """

    root: str
    database: str
    enabled: bool
    nodes: tuple[NodeOverview, ...]
    jobs: tuple[JobOverview, ...]
    running: tuple[Run, ...]
    troubled: tuple[Run, ...]
    counts: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    degraded: tuple[Problem, ...] = ()
    pauses: tuple[PauseOverview, ...] = ()
    held: Mapping[str, datetime] = field(default_factory=lambda: EMPTY)
    orphaned: tuple[Orphan, ...] = ()
    waiting: int = 0
    waiting_since: datetime | None = None
    problem: str = ""
