"""Runs to tell hooks of, a scrape as prometheus_client reads it, a clock that a test sets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from systemprompt_jobs import Run
from systemprompt_jobs._clock import SystemClock
from systemprompt_jobs.model import Node, State, Trigger

NOON = datetime(2024, 3, 4, 12, 0, 30, tzinfo=UTC)
NODE = Node("here:1:ab", "here", 1, "ab", "0.1")


def run(id_=1, job_id="ext:job", state=State.RUNNING, **values):
    """Return the run of a tick, punctual and started once."""
    defaults = {"tick": NOON, "due": NOON, "started": NOON, "attempt": 1, "node": NODE.id}
    return Run(id_, job_id, Trigger.SCHEDULE, state, **(defaults | values))


class Scrape(NamedTuple):
    """What a scraper reads."""

    kind: str
    families: dict
    samples: dict

    def value(self, name, **labels):
        """Return a sample's value, None where there is none."""
        return self.samples.get((f"systemprompt_jobs_{name}", frozenset(labels.items())))

    def labels(self, name, label):
        """Return the values of a label."""
        found = [dict(labels) for there, labels in self.samples if there.endswith(f"jobs_{name}")]
        return {labels[label] for labels in found}


def read(answer):
    kind, body = answer
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    samples = {
        (s.name, frozenset(s.labels.items())): s.value
        for family in families.values()
        for s in family.samples
    }
    return Scrape(kind, families, samples)


def scrape(runtime):
    """Read the page of a runtime."""
    return read(runtime.page("/metrics"))


class ShiftedClock(SystemClock):
    """The time as it goes, from another instant on."""

    def __init__(self, now):
        self._shift = now - datetime.now(UTC)

    def now(self):
        return super().now() + self._shift
