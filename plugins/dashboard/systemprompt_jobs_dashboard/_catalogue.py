"""All jobs of the configuration, as they are searched: by text, tag and condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from systemprompt_jobs.builtin.words import schedule_words
from systemprompt_jobs.model import State

if TYPE_CHECKING:
    from starlette.requests import Request

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.model import Plan

ONLY = ("all", "trouble", "running", "paused", "disabled")
_TROUBLE = (State.FAILED, State.TIMED_OUT, State.LOST, State.MISSED)
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs are asked for, as the address says."""

    q: str
    tag: str
    only: str
    page: int

    @classmethod
    def by(cls, request: Request) -> Chosen:
        """Return what a request asks for; nonsense is as good as nothing."""
        asked = request.query_params
        only, page = asked.get("only", ""), asked.get("page", "")
        return cls(
            asked.get("q", "").strip(),
            asked.get("tag", ""),
            only if only in ONLY else "all",
            int(page) if page.isascii() and page.isdigit() and len(page) <= _DIGITS else 1,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """A part of what was found: `number` of `pages`, counted from 1."""

    ids: list[str]
    number: int
    pages: int
    total: int


class Catalogue:
    """The jobs by id, and what is said of them once somebody searches for it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._plans: tuple[Plan, ...] = ()
        self._sorted: list[Plan] = []
        self._texts: dict[str, str] = {}
        self.tags: list[str] = []

    def plans(self) -> list[Plan]:
        """Return every job in the order of the ids. Raises ConfigurationError."""
        if self._plans is not self._runtime.plans:  # the configuration was read again
            self._plans, self._texts = self._runtime.plans, {}
            self._sorted = sorted(self._plans, key=lambda plan: plan.id)
            self.tags = sorted({tag for plan in self._plans for tag in plan.job.tags})
        return self._sorted

    def page(self, chosen: Chosen, size: int) -> Page:
        """Return the page of the jobs that are asked for; the last one for one beyond it."""
        found = self.find(chosen)
        pages = max(1, -(-len(found) // size))
        number = min(max(chosen.page, 1), pages)
        return Page(found[(number - 1) * size : number * size], number, pages, len(found))

    def find(self, chosen: Chosen) -> list[str]:
        """Return the ids of the jobs that are asked for."""
        plans = self.plans()
        if chosen.only != "all":
            wanted = self._in_condition(chosen.only)
            plans = [plan for plan in plans if plan.id in wanted]
        if chosen.tag:
            plans = [plan for plan in plans if chosen.tag in plan.job.tags]
        if chosen.q:
            plans = [plan for plan in plans if chosen.q.lower() in self._text(plan)]
        return [plan.id for plan in plans]

    def _in_condition(self, only: str) -> set[str]:
        if only == "paused":
            return set(self._runtime.pauses())
        if only == "running":
            return {run.job_id for run in self._runtime.history(states=["running"], limit=1000)}
        if only == "disabled":
            return {plan.id for plan in self._plans if not plan.enabled}
        degraded = {plan.id for plan in self._plans if plan.problem is not None}
        return degraded | self._runtime.last_in(*_TROUBLE)

    def _text(self, plan: Plan) -> str:
        if plan.id not in self._texts:
            words = f"{plan.id} {plan.job.description} {schedule_words(plan)}"
            self._texts[plan.id] = words.lower()
        return self._texts[plan.id]
