"""What brings runs to workers: messages that get lost, doubled, late, and to the wrong place."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from systemprompt_jobs.interfaces import Capabilities

if TYPE_CHECKING:
    import random

    from systemprompt_jobs.interfaces import Attempt
    from systemprompt_jobs.testing._machine import Machine
    from systemprompt_jobs.testing._world import World

POOL = "far"
DEADLINE = timedelta(minutes=5)

_AGAIN_S = 30.0
"""So long later a message is brought again that its worker has not settled."""


class Mail:
    """A broker between schedulers and workers; what it does is drawn from `chance`."""

    def __init__(self, world: World, workers: list[Machine], chance: random.Random) -> None:
        self.healed = False
        self.sent: Counter[tuple[int, int]] = Counter()
        self.fates: Counter[str] = Counter()
        self._settled: set[tuple[int, int]] = set()
        self._world = world
        self._workers = workers
        self._chance = chance

    def send(self, attempt: Attempt) -> None:
        """Bring a message; or not, or twice."""
        key = attempt.run.id, attempt.run.fence
        self.sent[key] += 1
        doublings = max(0, attempt.run.fence - 1 - attempt.run.attempt)
        waits = min(DEADLINE.total_seconds() * 2**doublings, 3600.0)
        self._world.call_in(waits + 1, partial(self._overdue, key))
        fate = self._chance.random()
        if fate < 0.15 and not self.healed:
            self._tell("a message is lost", key)
        elif fate < 0.25 and not self.healed:
            self._tell("a message is refused", key)
            attempt.refused("the broker is away")
        else:
            self._bring(key)
            if fate < 0.5:
                self._tell("a message is doubled", key)
                self._in(self._chance.choice([0, 1, 400]), key)

    def _overdue(self, key: tuple[int, int]) -> None:
        """Have all look: nobody renews the lease of what is under way."""
        if key not in self._settled:
            self._world.stir()

    def _tell(self, fate: str, key: tuple[int, int]) -> None:
        self.fates[fate] += 1
        self._world.note("mail", f"{fate}: run {key[0]} fence {key[1]}")

    def _in(self, seconds: float, key: tuple[int, int]) -> None:
        self._world.call_in(seconds, partial(self._deliver, key))

    def _bring(self, key: tuple[int, int]) -> None:
        late = self._chance.random() < 0.2
        if late:
            self._tell("a message is late", key)
        self._in(self._chance.choice([60, 300, 1200]) if late else 0.01, key)

    def _deliver(self, key: tuple[int, int]) -> None:
        up = [worker for worker in self._workers if worker.up and not worker.frozen]
        if not up:
            self._in(_AGAIN_S, key)
            return
        worker = self._chance.choice(up)
        runtime, settled = worker.runtime, []
        assert runtime is not None

        def done() -> None:
            settled.append(key)
            self._settled.add(key)

        self._world.act(worker, lambda: runtime.take(*key, POOL, done))
        self._world.call_in(_AGAIN_S, partial(self._again, key, worker, worker.life, settled))

    def _again(self, key: tuple[int, int], worker: Machine, life: int, settled: list) -> None:
        """Bring again what nobody has settled, as brokers do whose consumer has gone."""
        if settled:
            return
        if worker.life != life:
            self._tell("a message is brought again", key)
            self._deliver(key)
        else:
            again = partial(self._again, key, worker, life, settled)
            self._world.call_in(_AGAIN_S, again)


class Far:
    """The executor of schedulers for runs that workers are sent."""

    size = 20
    capabilities = Capabilities(remote=True)
    deadline = DEADLINE
    problem = ""

    def __init__(self, mail: Mail) -> None:
        self.submit = mail.send

    def interrupt(self, attempt: Attempt) -> None:
        """Do nothing: who cancels a run tells its worker."""

    def close(self) -> None:
        """Do nothing: nothing waits here."""
