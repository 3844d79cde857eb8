"""Any order of events, and a crash or a lost answer between any two statements.

Nodes without threads share a database and a clock; hypothesis decides who steps, what time it
is and which statement fails. The checker judges after each step, and at the end a last node must
bring every due tick to an end.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import svcs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from sqlalchemy import event

from systemprompt_jobs import JobContext, _node, _prune, job
from systemprompt_jobs._calendar import parse
from systemprompt_jobs._context import Resources
from systemprompt_jobs._control import Control
from systemprompt_jobs._prune import Retention
from systemprompt_jobs._store import Store
from systemprompt_jobs._store.schema import micros
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.interfaces import Capabilities
from systemprompt_jobs.model import Overlap, RetryPolicy
from tests.faults import checker
from tests.support import Calls, ManualClock, before_statements, make_plan

LEASE_S = 3.0
JOBS = {"ext:each": "* * * * * *", "ext:third": "*/3 * * * * *"}
PLANS = {
    "ext:each": {
        "overlap": Overlap.ALLOW,
        "retry": RetryPolicy(max_attempts=2, delay=timedelta(seconds=0.4)),
    },
    "ext:third": {"overlap": Overlap.SKIP},
}


class Crash(BaseException):
    """The process is no more: nothing of it runs, not even an `except Exception`."""


class FaultyStore(Store):
    """A database that fails when told: before the n-th statement, or around a commit.

    Or the clock goes back there.
    """

    def __init__(self, url, clock):
        super().__init__(url)
        self.statements = None
        self.commits = None
        self.fail = None
        self.step_back = lambda: clock.step(-2.0)

    @contextmanager
    def fault(self, kind, place):
        """Break what happens inside, once: before statement number `place`, or at a commit."""
        self.fail = {"crash": _crash, "error": _refuse, "clock": self.step_back}[kind]
        self.statements = place if isinstance(place, int) else None
        self.commits = None if isinstance(place, int) else place
        try:
            yield
        finally:
            self.statements = self.commits = None

    @contextmanager
    def write(self):
        with super().write() as connection:
            yield connection
            self._commit("before")
        self._commit("after")

    def _commit(self, when):
        if self.commits == when:
            self.commits = None
            self.fail()

    def _open(self):
        if self._engine is None:
            engine = super()._open()
            before_statements(self, self._count)
            event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA synchronous=OFF"))
        return self._engine

    def _count(self, *_):
        if self.statements is not None:
            self.statements -= 1
            if self.statements < 0:
                self.statements = None
                self.fail()


def _crash():
    raise Crash


def _refuse():
    raise StoreError("told to fail")


class StillLoop:
    """A loop whose steps are made by hand."""

    def __init__(self, *arguments, **values): ...
    def start(self): ...
    def wake(self): ...
    def stop(self): ...


class Silent(Calls):
    """An observer that nobody listens to."""

    def __init__(self, _manager, **_how):
        super().__init__()

    def start(self): ...
    def drain(self, seconds): ...


class Deaf:
    """What would listen to the log of the whole process."""

    def attach(self): ...
    def detach(self): ...


class Hands:
    """An executor whose work is done when told; what a crash leaves here never starts.

    It notes when a run was gated: the clock may be stepped before a worker is free. `on_record`
    tells who holds a run, and how long that node may start anything, as the database has it.
    """

    size = 10
    capabilities = Capabilities()

    def __init__(self, clock, on_record):
        self.clock = clock
        self.on_record = on_record
        self.work = []

    def submit(self, attempt):
        *holder, lease_until = self.on_record(attempt.run)
        assert holder == ["running", attempt.run.fence, attempt.run.node]
        assert lease_until > self.clock.lease_now()
        self.work.append((self.clock.now(), attempt))

    def interrupt(self, attempt): ...

    def close(self): ...


@pytest.fixture(scope="module", autouse=True)
def _without_threads():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_node, "Loop", StillLoop)
        patch.setattr(_node, "Observer", Silent)
        patch.setattr(_node, "_MOMENT_S", 0.0)
        patch.setattr(_node, "LogTap", Deaf)
        patch.setattr(_node, "Middleware", lambda _: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _template(tmp_path_factory):
    """Make one migrated database, to be copied for each example."""
    World.template = tmp_path_factory.mktemp("template") / "jobs.db"
    store = Store(f"sqlite:///{World.template}")
    store.prepare()
    store.close()
    yield
    del World.template


FAULTS = st.tuples(
    st.sampled_from(["crash", "error"]),
    st.integers(0, 9) | st.sampled_from(["before", "after"]),
) | st.just(("clock", 0))  # later, the gate has asked the clock already
NO_FAULT = st.none()
PICK = st.integers(0, 2)
STAGES = ("_claimer", "_recorder", "_keeper")
OUTCOMES = st.sampled_from(["ends", "ends", "fails", "dies"])

HOLDINGS = "SELECT id, state, fence, node, coalesce(lease_until, 0) FROM jobs_run"
HOLDER = """
SELECT r.state, r.fence, r.node, coalesce(n.lease_until, 0)
FROM jobs_run r LEFT JOIN jobs_node n ON n.id = r.node WHERE r.id = {}"""
ATTEMPTS = "SELECT node FROM jobs_attempt WHERE run_id = {} AND fence = {}"
FAILED = "SELECT 1 FROM jobs_attempt WHERE run_id = {} AND fence = {} AND outcome = 'failed'"
NOT_SETTLED = """
SELECT r.id FROM jobs_run r JOIN jobs_job j ON j.id = r.job_id
WHERE coalesce(r.last_tick, r.tick_at) > coalesce(j.last_tick, 0) OR j.next_tick <= j.last_tick"""
EARLY = "SELECT id FROM jobs_run WHERE state = 'claimed' AND tick_at > created + 1000000"
WRONG_SLOTS = """
SELECT id FROM jobs_run WHERE overlap = 'skip' AND (state = 'running') <>
(SELECT count(*) FROM jobs_slot WHERE run_id = jobs_run.id AND key = 'overlap:' || job_id)"""

with_nodes = precondition(lambda self: self.nodes)


class World(RuleBasedStateMachine):
    """Up to three nodes, one clock, one file."""

    template: Path

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine"))
        shutil.copyfile(self.template, self.folder / "jobs.db")
        self.url = f"sqlite:///{self.folder}/jobs.db"
        self.database = checker.connect(self.url)
        self.clock = ManualClock()
        self.nodes = {}
        self.started = 0
        self.ends = {}
        self.effects = []
        self.marks = []
        self.held = {}
        self.holders = {}
        self.stopped = set()
        self.since = None
        self.gated = self.clock.now()
        self.pruned = []
        self.outcome = "ends"
        self.meanwhile = None

    # --- what happens ---

    @initialize()
    def begin(self):
        self._start(0)
        self._start(1)

    @precondition(lambda self: len(self.nodes) < 3)
    @rule(fault=NO_FAULT | FAULTS)
    def start(self, fault):
        self._start(self.started, fault)

    def _start(self, number, fault=None):
        node = _node.LiveNode(
            FaultyStore(self.url, self.clock),
            [self._plan(id_, cron) for id_, cron in JOBS.items()],
            None,
            Resources({}, svcs.Registry()),
            {"default": Hands(self.clock, lambda run: self._ask(HOLDER, run.id)[0])},
            self.clock,
            LEASE_S,
        )
        self.started += 1
        self.nodes[number] = node
        self._do(number, lambda: node.start_ticking(parse, ()), fault, refused=self._stop)

    @with_nodes
    @rule(pick=PICK)
    def a_second_as_it_should_be(self, pick):
        number = self._picked(pick)
        self.clock.advance(1.0)
        for stage in STAGES:
            self._step(number, stage)
        self._work_off(number)

    @with_nodes
    @rule(pick=PICK)
    def a_second_in_which_it_only_claims(self, pick):
        self.clock.advance(1.0)
        self._step(self._picked(pick), "_claimer")

    @with_nodes
    @rule(pick=PICK, stage=st.sampled_from(STAGES), fault=NO_FAULT | FAULTS)
    def step(self, pick, stage, fault):
        self._step(self._picked(pick), stage, fault)

    @with_nodes
    @rule(pick=PICK, outcome=OUTCOMES)
    def work(self, pick, outcome):
        """Let a worker run a function; it may be the last thing that its process does."""
        number = self._picked(pick)
        if self._work_of(number):
            self._work(number, outcome)
            if outcome == "dies":
                self._bury(number)

    @with_nodes
    @rule(pick=PICK, outcome=OUTCOMES, fault=NO_FAULT | FAULTS)
    def a_report_comes_twice(self, pick, outcome, fault):
        number = self._picked(pick)
        if outcome == "dies" or not self._work_of(number):
            return
        run, report = self._work(number, outcome)
        self.nodes[number]._recorder.report(run, report)
        self._step(number, "_recorder", fault)
        self._step(number, "_recorder")

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(pick=PICK, outcome=OUTCOMES, theirs=OUTCOMES, done=st.booleans())
    def it_freezes_in_a_function_and_another_takes_over(self, pick, outcome, theirs, done):
        """And perhaps is done with its runs before it wakes up."""
        number, other = self._two(pick)
        self.clock.advance(1.0)
        self._step(number, "_claimer")
        self._step(number, "_recorder")
        if not self._work_of(number):
            return
        self.meanwhile = lambda: self._take_over(other)
        self._work(number, outcome)
        if done:
            self._work_off(other, theirs)
        self._step(number, "_recorder")

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(pick=PICK, wakes=st.sampled_from([("_recorder", "_keeper"), ("_keeper",)]))
    def it_freezes_with_claims_and_another_takes_over(self, pick, wakes):
        number, other = self._two(pick)
        self.clock.advance(1.0)
        self._step(number, "_claimer")
        self._take_over(other, gates=False)
        for stage in (*wakes, "_recorder"):
            self._step(number, stage)
        self._step(other, "_recorder")

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(pick=PICK, when=st.sampled_from(["before", "after"]))
    def its_claim_is_in_doubt_and_another_claims(self, pick, when):
        number, other = self._two(pick)
        self.clock.advance(1.0)
        self._step(number, "_claimer", ("error", when))
        for stage in ("_claimer", "_recorder"):
            self._step(other, stage)
            self._step(number, stage)

    @with_nodes
    @rule(pick=PICK)
    def the_clock_goes_back_just_before_a_gate(self, pick):
        number = self._picked(pick)
        self.clock.advance(1.0)
        self._step(number, "_claimer")
        self._step(number, "_recorder", ("clock", 0))

    @rule()
    def all_that_has_ended_is_pruned(self):
        before, store = checker.read_rows(self.database), Store(self.url)
        for _ in _prune._new_pass(store, self.clock, Retention(timedelta(0), 0)).delete():
            pass
        store.close()
        left = {row.id for row in checker.read_rows(self.database)}
        self.pruned += [row for row in before if row.id not in left]

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(pick=PICK)
    def kill(self, pick):
        self._bury(self._picked(pick))

    @with_nodes
    @rule(pick=PICK, fault=NO_FAULT | FAULTS)
    def stop(self, pick, fault):
        """Tell a node to stop, with no time for what runs."""
        number = self._picked(pick)
        self.stopped.add(self.nodes[number].node.id)
        self._do(number, lambda: self.nodes[number].stop(0), fault)
        self._bury(number)

    @with_nodes
    @rule(pick=PICK)
    def all_others_freeze_for_a_lease(self, pick):
        self._take_over(self._picked(pick), gates=False)

    @with_nodes
    @rule(pick=PICK)
    def it_wakes_up(self, pick):
        """Have it go on with what it holds in memory, which may be another's by now."""
        number = self._picked(pick)
        self._step(number, "_keeper")
        self._step(number, "_recorder")

    @rule(seconds=st.sampled_from([0.1, 0.8, 1.0, LEASE_S / 3, LEASE_S + 1]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-7.5, -2.0, 2.0, 7.5]))
    def the_clock_is_stepped(self, seconds):
        self.clock.step(seconds)

    @rule(id_=st.sampled_from(sorted(JOBS)), seconds=st.sampled_from([None, 1.0, 2.5, 4.0]))
    def pause(self, id_, seconds):
        until = None if seconds is None else timedelta(seconds=seconds)
        self._control(lambda control: control.pause([id_], [], until, "", ""))
        self.held = {}  # an operator may take runs from whoever holds them

    @rule(id_=st.sampled_from(sorted(JOBS)))
    def resume(self, id_):
        self._control(lambda control: control.resume([id_], "", ""))

    # --- how ---

    def _control(self, change):
        store = Store(self.url)
        change(Control(store, self.clock, Calls()))
        store.close()

    def _picked(self, pick):
        return sorted(self.nodes)[pick % len(self.nodes)]

    def _step(self, number, stage, fault=None):
        if number in self.nodes:
            node = self.nodes[number]
            self._do(number, lambda: getattr(node, stage).step(), fault)

    def _work(self, number, outcome="ends"):
        """Do the first piece of work of a node; return the run and what it came to."""
        self.outcome = outcome
        self.gated, attempt = self._work_of(number).pop(0)
        report = attempt.call()
        if outcome != "dies":
            attempt.ended(report)
        return attempt.run, report

    def _work_off(self, number, outcome="ends"):
        while number in self.nodes and self._work_of(number):
            self._work(number, outcome)
            if outcome == "dies":
                self._bury(number)
        self._step(number, "_recorder")

    def _take_over(self, other, *, gates=True):
        """Have a node see the leases of all others run out, and take what they held."""
        for seconds in (LEASE_S + 0.1, LEASE_S / 3 + 0.1):  # it looks twice
            self.clock.advance(seconds)
            self._step(other, "_keeper")
        if gates:
            self._step(other, "_recorder")

    def _two(self, pick):
        number = self._picked(pick)
        return number, next(other for other in sorted(self.nodes) if other != number)

    def _work_of(self, number):
        return self.nodes[number]._executors["default"].work

    def _plan(self, id_, cron):
        name = id_.partition(":")[2]

        @job(name=name)
        def function(ctx: JobContext):
            outcome = self.outcome
            self._note("START", ctx.run)
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                meanwhile()
            if outcome != "dies":
                self._note("END", ctx.run)
            if outcome == "fails":
                raise RuntimeError("told to fail")

        return replace(make_plan(name, cron, **PLANS[id_]), job=function)

    def _ask(self, sql, *values):
        return checker.query(self.database, sql.format(*values))

    def _rows(self):
        return [*self.pruned, *checker.read_rows(self.database)]

    def _note(self, kind, run):
        if kind == "START" and run.id not in {row.id for row in self.pruned}:
            assert self._ask(ATTEMPTS, run.id, run.fence) == [(run.node,)]
        tick, wall = micros(run.tick), micros(self.gated)
        self.effects.append(
            checker.Effect(kind, run.job_id, tick, run.id, run.fence, pid=0, wall=wall)
        )

    def _do(self, number, action, fault, refused=None):
        store = self.nodes[number]._store
        try:
            if fault is None:
                action()
            else:
                with store.fault(*fault):
                    action()
        except StoreError:
            if refused is not None:
                refused(number)
        except Crash:
            self._bury(number)

    def _stop(self, number):
        """Do what `Runtime.start` does when it fails."""
        self.stopped.add(self.nodes[number].node.id)
        self.nodes[number].stop(0)
        self._bury(number)

    def _bury(self, number):
        node = self.nodes.pop(number, None)
        if node is not None:
            node._store.close()

    # --- the verdict ---

    @invariant()
    def nothing_is_broken(self):
        marks = checker.read_marks(self.database)
        if not self.marks or marks != self.marks[-1]:
            self.marks.append(marks)
        found = checker.check(JOBS, self._rows(), self.effects, since=0, until=0, marks=self.marks)
        assert found == []

    @invariant()
    def an_end_is_an_end(self):
        ends = {r.id: r.state for r in self._rows() if r.state in checker.ENDS}
        assert self.ends.items() <= ends.items()
        self.ends = ends

    @invariant()
    def a_run_is_taken_from_its_node_only_when_its_lease_is_long_over(self):
        """Two looks at it, a third of a lease apart, say so. One fence has one holder."""
        held, now = self.held, self.clock.lease_now()
        self.held = {}
        for id_, state, fence, node, lease_until in checker.query(self.database, HOLDINGS):
            if node:
                assert self.holders.setdefault((id_, fence), node) == node
            taken = id_ in held and (state == "lost" or held[id_][0] < fence)
            if taken and not self._ask(FAILED, id_, held[id_][0]):  # else its node wants it so
                _, before, until = held[id_]
                assert before in self.stopped or now >= until + LEASE_S / 3 * checker.SECOND
            if state in {"claimed", "running"}:
                self.held[id_] = fence, node, lease_until

    @invariant()
    def what_runs_has_its_slot_and_nothing_else_has(self):
        assert checker.query(self.database, WRONG_SLOTS) == []

    @invariant()
    def what_is_in_a_row_is_settled(self):
        assert checker.query(self.database, NOT_SETTLED) == []

    @invariant()
    def nothing_is_claimed_more_than_a_second_ahead(self):
        assert checker.query(self.database, EARLY) == []

    @invariant()
    def what_lies_behind_is_covered(self):
        """From the first tick that a job was given to the newest that is settled: no gaps."""
        if self.since is None:
            sql = "SELECT min(next_tick), count(next_tick) FROM jobs_job"
            first, installed = checker.query(self.database, sql)[0]
            if installed < len(JOBS):
                return
            self.since = first - 1
        rows = self._rows()
        for id_, cron in JOBS.items():
            settled = self.marks[-1].get(id_, 0)
            found = checker.check({id_: cron}, rows, [], since=self.since, until=settled)
            assert [violation for violation in found if violation.invariant == "I1"] == []

    def teardown(self):
        try:
            self._recover()
        finally:
            for number in [*self.nodes]:
                self._bury(number)
            self.database.close()
            shutil.rmtree(self.folder)

    def _recover(self):
        """Within 5/3 of a lease, and three seconds for what has piled up, one healthy node settles it all."""
        for number in [*self.nodes]:
            self._bury(number)
        last = self.started
        self._start(last)
        behind = max(self.marks[-1].values(), default=0) - micros(self.clock.now())
        self.clock.step(max(0, behind / checker.SECOND))  # the clock comes to where it had been
        self._control(lambda control: control.resume(JOBS, "", ""))
        due = micros(self.clock.now())
        for _ in range(round((LEASE_S * 5 / 3 + 3) / 0.5)):
            self.clock.advance(0.5)
            for stage in ("_claimer", "_keeper", "_recorder"):
                self._step(last, stage)
            self._work_off(last)
        since = due if self.since is None else self.since
        rows = self._rows()
        assert checker.check(JOBS, rows, self.effects, since=since, until=due) == []


World.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestWorld = World.TestCase
