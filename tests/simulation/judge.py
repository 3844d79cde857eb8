"""Judges the diary of a day by the words of the contract; knows nothing of how schedulers work."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from tests.faults import checker
from tests.faults.checker import ENDS, SECOND, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.simulation.diary import JobEntry, RunEntry

HELD = frozenset({"claimed", "dispatched", "running"})
_BACK = frozenset({"pending", "claimed"})
_LIFE = {
    None: {"pending", "claimed", "skipped", "missed"},
    "pending": {"claimed", "skipped", "missed", "cancelled", "failed"},
    "claimed": {"running", "dispatched", "pending", "skipped", "cancelled", "lost"},
    "dispatched": {"running", "pending", "skipped", "cancelled"},
    "running": ENDS - {"missed"} | _BACK,
}
_AHEAD = 1 * SECOND
"""So much before its time a tick may be claimed."""

_MINUTE, _HOUR = 60 * SECOND, 3600 * SECOND

_FOREVER = 2**62


@dataclass
class Case:
    """What there is to judge.

    - `runs`, `jobs`: the diary; `calendar`: cron texts to their ticks, `until`: what is due up to
      then must have ended; both in microseconds.
    - `lease`: how long one is; `lease_clock`: how far its clock is ahead of the diary's `at`.
    - `one_clock`: whether all nodes have the clock that decides what is due.
    - `is_well(node, since, until)`: whether nothing was the matter with a node from then to then;
      `is_worker(node)`: whether it claims nothing.
    - `wanted`: the runs that were asked for by hand, by mark, and whether the answer was that they
      will run; `keep`, `age`: how many of a job's newest runs, and which young ones, must be kept.
    """

    runs: Sequence[RunEntry]
    jobs: Sequence[JobEntry]
    until: int
    lease: int
    lease_clock: int
    one_clock: bool
    is_well: Callable[[str, int, int], bool]
    is_worker: Callable[[str], bool]
    wanted: Mapping[str, bool]
    keep: int
    age: int
    calendar: Callable[[str], Sequence[int]]
    last: dict[int, RunEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.last = {entry.run: entry for entry in self.runs if entry.state != "deleted"}

    def ticks(self, cron: str | None, first: int, last: int) -> Sequence[int]:
        """Return the ticks with `first` <= tick <= `last`."""
        found = self.calendar(cron) if cron else ()
        return found[bisect_left(found, first) : bisect_right(found, last)]


@cache
def calendar(cron: str, after: int, until: int) -> tuple[int, ...]:
    """Return the ticks of a cron text; always the same ones are asked for."""
    return tuple(checker.ticks(cron, after, until))


def judge(case: Case) -> Iterator[Violation]:
    """Yield all that is wrong."""
    for entry in case.runs:
        yield from _life(case, entry)
        yield from _hands(case, entry)
        if entry.state == "running":
            yield from _gate(entry)
        if entry.was == "pending":
            yield from _waited(entry)
        if entry.was is None and entry.trigger == "schedule":
            yield from _settled(case, entry)
    yield from _overlaps(case)
    yield from _skips(case)
    yield from _coverage(case)
    yield from _one_at_a_time(case)
    yield from _plans(case)
    yield from _retries(case)
    yield from _asked_for(case)
    yield from _ends(case)


def _wrong(rule: str, entry: RunEntry, text: str) -> Violation:
    who = entry.who.rpartition(":")[2]
    said = (
        f"run {entry.run} of {entry.job} ({entry.was} to {entry.state} at {_shown(entry)}, {who})"
    )
    return Violation(rule, f"{said}: {text}")


def _shown(entry: RunEntry | JobEntry) -> str:
    minutes, micros = divmod(entry.at, 60 * SECOND)
    return f"{minutes // 60:02}:{minutes % 60:02}:{micros / SECOND:09.6f}"


# --- runs ---


def _life(case: Case, entry: RunEntry) -> Iterator[Violation]:
    """S1: states follow each other as the contract draws them, and fences never fall."""
    if entry.state == "deleted":
        young = entry.finished is None or entry.finished >= entry.clock - case.age
        if entry.was not in ENDS or young or entry.younger < case.keep:
            yield _wrong("S1", entry, "it was forgotten too early")
        return
    if entry.state not in _LIFE.get(entry.was, ()):
        yield _wrong("S1", entry, "that does not follow")
    if entry.fence < entry.old_fence:
        yield _wrong("S1", entry, f"the fence fell from {entry.old_fence} to {entry.fence}")
    if entry.was in HELD and entry.state in _BACK and entry.fence == entry.old_fence:
        yield _wrong("S1", entry, f"it is given away under the fence {entry.fence}")
    if entry.attempt > entry.most:
        yield _wrong("S1", entry, f"attempt {entry.attempt} of {entry.most}")


def _hands(case: Case, entry: RunEntry) -> Iterator[Violation]:
    """S2: only its holder changes a run that is held, and people what has not begun.

    S3: others only once they saw its lease expired at two looks. S4: and not from one that is well.
    """
    if entry.was not in HELD or entry.state == "deleted":
        return
    if entry.who == "operator":
        if entry.was == "running":
            yield _wrong("S2", entry, "people can only ask for its end")
    elif entry.was == "dispatched":
        # At a worker's gate, or it could not be sent.
        if not (case.is_worker(entry.who) or entry.reason):
            yield from _rescue(case, entry)
    elif entry.who != entry.holder:
        yield from _rescue(case, entry)
    elif entry.was == "running" and entry.cancelled and entry.state not in ENDS:
        yield _wrong("S5", entry, "it was cancelled")


def _rescue(case: Case, entry: RunEntry) -> Iterator[Violation]:
    if entry.state not in {"pending", "lost"} or entry.lease is None:
        yield _wrong("S2", entry, f"it is {entry.holder}'s")
        return
    expired = entry.lease - case.lease_clock
    if entry.at < expired + case.lease // 3:
        late = (entry.at - expired) / SECOND
        yield _wrong("S3", entry, f"its lease had run out {late:.1f} s ago: that is one look")
    if entry.was != "dispatched" and case.is_well(entry.holder, expired - case.lease, entry.at):
        yield _wrong("S4", entry, f"it was taken from {entry.holder}, which is well")


def _gate(entry: RunEntry) -> Iterator[Violation]:
    """I6, S5, S6, S7: nothing starts before its time, cancelled or while its job is paused."""
    if entry.trigger == "schedule" and entry.tick is not None and entry.tick > entry.clock:
        yield _wrong("I6", entry, f"{(entry.tick - entry.clock) / SECOND} s early")
    if entry.available is not None and entry.available > entry.clock:
        early = (entry.available - entry.clock) / SECOND
        yield _wrong("S7", entry, f"{early} s before the time for which it waits")
    if entry.cancelled is not None:
        yield _wrong("S5", entry, "it was cancelled")
    if entry.trigger != "manual" and _is_paused(entry, entry.clock):
        yield _wrong("S6", entry, "its job is paused")


def _is_paused(entry: RunEntry, at: int) -> bool:
    return entry.paused_at is not None and (entry.paused_until or _FOREVER) > at


def _waited(entry: RunEntry) -> Iterator[Violation]:
    """S7: what waits is taken when its time has come, and given up when it is over."""
    if entry.who == "operator":
        return
    if entry.state == "claimed":
        if entry.available is not None and entry.available > entry.clock:
            early = (entry.available - entry.clock) / SECOND
            yield _wrong("S7", entry, f"taken {early} s early")
        if entry.until is not None and entry.until < entry.clock:
            yield _wrong("S7", entry, "taken after its catch-up window")
        if entry.trigger != "manual" and _is_paused(entry, entry.clock):
            yield _wrong("S6", entry, "its job is paused")
    elif entry.until is None or entry.until >= entry.clock:
        yield _wrong("S7", entry, "given up within its catch-up window")


def _settled(case: Case, entry: RunEntry) -> Iterator[Violation]:
    """S8: a tick that comes, late or not, is settled by the policy in force; S6: or its pause."""
    assert entry.tick is not None
    last = entry.last or entry.tick
    covered = case.ticks(entry.schedule, entry.tick, last)
    if len(covered) != entry.count or not {entry.tick, last} <= {*covered}:
        yield _wrong("I1", entry, f"it says {entry.count} ticks, it is {len(covered)}")
    if last > entry.clock + _AHEAD:
        yield _wrong("S8", entry, f"claimed {(last - entry.clock) / SECOND} s ahead")
    start = _FOREVER if entry.paused_at is None else entry.paused_at
    end = entry.paused_until or _FOREVER
    inside = [tick for tick in covered if start <= tick < end]
    if entry.state == "skipped":
        if len(inside) != len(covered):
            yield _wrong("S6", entry, "ticks are skipped that no pause covers")
        return
    if inside:
        yield _wrong("S6", entry, "ticks of a pause are no skipped ones")
    due = [t for t in case.ticks(entry.schedule, last + 1, entry.clock) if not start <= t < end]
    yield from (_missed if entry.state == "missed" else _claimed)(case, entry, last, due)


def _missed(case: Case, entry: RunEntry, last: int, due: list[int]) -> Iterator[Violation]:
    replaced = _is_paused(entry, entry.clock) or _is_off(case, entry)
    overtaken = bool(due) and entry.catch_up != "all"
    if not (overtaken or replaced or last < entry.clock - _window(entry)):
        yield _wrong("S8", entry, f"{_late(entry, last)}: it is late, not missed")


def _claimed(_case: Case, entry: RunEntry, tick: int, due: list[int]) -> Iterator[Violation]:
    if _is_paused(entry, entry.clock + _AHEAD):
        yield _wrong("S6", entry, "its job is paused")
    if tick < entry.clock - _window(entry):
        yield _wrong("S8", entry, f"{_late(entry, tick)}: too old for {entry.catch_up}")
    if due and entry.catch_up != "all":
        yield _wrong("S8", entry, f"newer ticks are due under {entry.catch_up}")


def _window(entry: RunEntry) -> int:
    window = (entry.window or 0) * SECOND
    return min(window, 60 * SECOND) if entry.catch_up == "none" else window


def _late(entry: RunEntry, tick: int) -> str:
    return f"{(entry.clock - tick) / SECOND} s late"


def _is_off(case: Case, entry: RunEntry) -> bool:
    """Return whether the plan that replaces the job's has no ticks."""
    return any(
        job.at == entry.at and job.job == entry.job and job.next_tick is None for job in case.jobs
    )


def _one_at_a_time(case: Case) -> Iterator[Violation]:
    """S8: under `all` a late tick waits until the ones before it have ended."""
    open_: dict[str, set[int]] = defaultdict(set)
    for entry in case.runs:
        if entry.trigger != "schedule":
            continue
        if entry.state in ENDS or entry.state == "deleted":
            open_[entry.job].discard(entry.run)
            continue
        late = entry.tick is not None and entry.tick < entry.clock - SECOND
        waits = entry.reason == "catch-up"  # of a plan that was replaced: in turn
        new = entry.was is None and not waits
        if new and late and entry.catch_up == "all" and open_[entry.job]:
            yield _wrong("S8", entry, f"the runs {open_[entry.job]} before it have not ended")
        open_[entry.job].add(entry.run)


def _overlaps(case: Case) -> Iterator[Violation]:
    """S9: who must not overlap holds a slot from the gate on, also while it waits to be retried."""
    holders: dict[str, set[int]] = defaultdict(set)
    for entry in case.runs:
        keys = [f"overlap {entry.job}"] if entry.overlap != "allow" else []
        keys += [f"limit {entry.limit_key}"] if entry.limit_key else []
        for key in keys:
            if entry.state in ENDS or entry.state == "deleted":
                holders[key].discard(entry.run)
            elif entry.state == "running":
                if others := holders[key] - {entry.run}:
                    yield _wrong("S9", entry, f"{key}: {others} hold the slot")
                holders[key].add(entry.run)


def _skips(case: Case) -> Iterator[Violation]:
    """S9: a tick is skipped only where another run is in its way.

    Whatever has not ended may be, and a thread that outlives its run: until another starts (that
    it gives its slot back at all is seen in the end). Under `queue` it takes one that waits already.
    """
    open_: dict[str, dict[int, RunEntry]] = defaultdict(dict)
    strays: set[str] = set()
    for entry in case.runs:
        if entry.state in {"timed_out", "cancelled"}:
            strays.add(entry.job)
        elif entry.state == "running" and entry.overlap != "allow":
            strays.discard(entry.job)
        if (entry.state, entry.reason) == ("skipped", "overlap"):
            others = [other for run, other in open_[entry.job].items() if run != entry.run]
            enough = {
                "allow": False,
                "queue": any(o.state != "running" or o.at == entry.at for o in others),
                "skip": bool(others) or entry.job in strays,
            }
            if not enough[entry.overlap]:
                yield _wrong("S9", entry, "nothing was in its way")
        if entry.state in ENDS or entry.state == "deleted":
            open_[entry.job].pop(entry.run, None)
        else:
            open_[entry.job][entry.run] = entry


def _ends(case: Case) -> Iterator[Violation]:
    """I5: what was due, or asked for, has come to an end, or is under way once more."""
    for entry in case.last.values():
        if entry.state == "dispatched" and entry.fence > 1 and entry.clock + _HOUR > case.until:
            continue  # the more messages were lost, the longer the next is waited for
        first = entry.tick or 0
        if entry.state not in ENDS and max(first, entry.clock) <= case.until:
            yield Violation("I5", f"run {entry.run} of {entry.job} is {entry.state} in the end")


# --- ticks ---


def _coverage(case: Case) -> Iterator[Violation]:
    """I1: each tick that was due under the plan in force is in one row, and no other is."""
    cover: dict[tuple[str, int], list[int]] = defaultdict(list)
    for entry in case.runs:
        if entry.was is None and entry.trigger == "schedule" and entry.tick is not None:
            for tick in case.ticks(entry.schedule, entry.tick, entry.last or entry.tick):
                cover[entry.job, tick].append(entry.run)
    for (job, tick), runs in cover.items():
        if len(runs) > 1:
            yield Violation("I1", f"tick {checker._shown(tick)} of {job} is in the runs {runs}")
    for job, tick in _due(case):
        if (job, tick) not in cover:
            yield Violation("I1", f"tick {checker._shown(tick)} of {job} is in no row")


def _due(case: Case) -> Iterator[tuple[str, int]]:
    """Yield the ticks of each stretch of time in which one plan was in force."""
    stretches: dict[str, list[JobEntry]] = defaultdict(list)
    for entry in case.jobs:
        if entry.was != entry.fingerprint or (entry.old_next is None) != (entry.next_tick is None):
            stretches[entry.job].append(entry)
    for job, entries in stretches.items():
        ends = [entry.clock for entry in entries[1:]] + [case.until]
        for entry, end in zip(entries, ends, strict=True):
            if entry.next_tick is not None:
                for tick in case.ticks(entry.schedule, entry.next_tick, end):
                    yield job, tick


def _plans(case: Case) -> Iterator[Violation]:
    """I7: no mark falls. S6: see `_pauses`. S10: a new plan begins now."""
    for entry in case.jobs:
        said = f"{entry.job} at {_shown(entry)}"
        if (entry.last_settled or 0) < (entry.old_last or 0):
            yield Violation("I7", f"{said}: its newest settled tick fell")
        yield from _pauses(entry, said)
        if entry.was != entry.fingerprint and entry.next_tick is not None:
            since = max(entry.clock, entry.last_settled or 0)
            first = case.ticks(entry.schedule, since + 1, since + 2 * 86_400 * SECOND)[:1]
            if [*first] != [entry.next_tick]:
                yield Violation("S10", f"{said}: its new plan begins at {entry.next_tick}")


def _pauses(entry: JobEntry, said: str) -> Iterator[Violation]:
    """S6: only people begin and end pauses, and none is forgotten with ticks to settle."""
    if (entry.paused_at, entry.paused_until) == (entry.old_pause, entry.old_until):
        return
    if entry.paused_at is not None and entry.who != "operator":
        yield Violation("S6", f"{said}: nobody has asked for this pause")
    over = entry.old_until is not None and entry.old_until <= entry.clock + _AHEAD
    settled = (entry.next_tick or _FOREVER) >= (entry.old_until or _FOREVER)
    lasts = entry.old_pause is not None and not (over and settled)
    if lasts and entry.paused_at != entry.old_pause:
        yield Violation("S6", f"{said}: a pause is forgotten that is not over")


def _retries(case: Case) -> Iterator[Violation]:
    """S13: nothing is tried again past the next tick, as far as the schedule stays the same.

    Other clocks than the database's say when an attempt failed, and a commit may take a while.
    """
    plans: dict[str, set[str]] = defaultdict(set)
    for job in case.jobs:
        plans[job.job].add(job.schedule if job.next_tick else "")
    before: dict[int, RunEntry] = {}
    for entry in case.runs:
        failed = before.get(entry.run)
        before[entry.run] = entry
        if failed is None or (failed.was, failed.state) != ("running", "pending"):
            continue
        due = entry.available
        if failed.who != failed.holder or due is None or due == entry.tick:
            continue
        if len(plans[entry.job]) == 1 and case.one_clock:
            passed = case.ticks(entry.schedule, failed.clock + 1, due - _MINUTE)
            if passed:
                yield _wrong("S13", failed, f"to be tried again after the tick {passed[0]}")


# --- people ---


def _asked_for(case: Case) -> Iterator[Violation]:
    """S11: what was asked for by hand runs once, whatever it is."""
    found: dict[str, list[int]] = defaultdict(list)
    for entry in case.runs:
        if entry.was is None and entry.mark:
            found[entry.mark].append(entry.run)
        by_hand = entry.trigger == "manual" and entry.state == "skipped"
        if by_hand and entry.reason != "overlap":
            yield _wrong("S11", entry, f"a run by hand is skipped: {entry.reason}")
    for mark, promised in case.wanted.items():
        runs = found[mark]
        if len(runs) > 1 or (promised and not runs):
            yield Violation("S11", f"what was asked for as {mark} are the runs {runs}")
