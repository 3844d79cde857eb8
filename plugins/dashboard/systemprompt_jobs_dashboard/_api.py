"""The JSON API: the answers of the commands that only look, word for word.

One table says it all: the routes, what they take, and the OpenAPI document that describes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from systemprompt_jobs.builtin import answers

from ._asked import Asked, Parameter
from ._guard import dashboard_of, root_of
from ._openapi import document
from ._run import find_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from systemprompt_jobs import Runtime


@dataclass(frozen=True, slots=True)
class Question:
    """A path, the command whose `--json` it answers, and the parameters both take."""

    path: str
    command: str
    about: str
    answer: Callable[[Runtime, Asked], dict[str, Any]]
    keys: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    sometimes: tuple[str, ...] = ()

    def respond(self, request: Request) -> Response:
        """Answer a request. Raises UsageError for one that cannot be answered."""
        asked = Asked(self.parameters, request.query_params, request.path_params)
        return answer(self.answer(dashboard_of(request).runtime, asked))


_JOB = Parameter("job", "a job, by its id or a name that is unique")
_TAG = Parameter("tag", "only jobs with this tag")
_NUMBER = Parameter("number", "how many at most", least=1, most=1000, default=20)
_TICKS = (
    Parameter("number", "how many ticks", least=1, most=1000, default=10),
    Parameter("from", "ticks after this time, e.g. 2026-03-29T01:00; else after now"),
    Parameter("tz", "show times in this zone"),
)
_SINCE = "from this time on: 2026-03-29T01:00, or 2h for two hours ago"


def _upcoming(runtime: Runtime, asked: Asked, **wanted: str | None) -> dict[str, Any]:
    return answers.upcoming(
        runtime,
        asked.number("number"),
        start=asked.text("from"),
        zone=asked.text("tz"),
        **wanted,
    )


def _history(runtime: Runtime, asked: Asked) -> dict[str, Any]:
    return answers.history(
        runtime,
        asked.number("number"),
        states=asked.texts("state"),
        before=asked.number_or_none("before"),
        text=asked.text("grep"),
        **{name: asked.text(name) for name in ("job", "tag", "since", "until", "node")},
    )


QUESTIONS = (
    Question(
        "/jobs", "list", "every job and how it went last",
        lambda runtime, asked: answers.jobs(runtime, asked.text("tag")),
        ("jobs", "orphaned"), (_TAG,),
    ),
    Question(
        "/jobs/{job}", "status JOB", "all about one job",
        lambda runtime, asked: answers.job(runtime, asked.path("job")),
        ("job",),
    ),
    Question(
        "/jobs/{job}/explain", "explain JOB", "why it will run or not, and who set each value",
        lambda runtime, asked: answers.explain(runtime, asked.path("job"), asked.text("at")),
        ("job", "sentences", "run", "values"),
        (Parameter("at", "what became of the tick at this time, in the job's zone"),),
    ),
    Question(
        "/jobs/{job}/next", "next JOB", "its upcoming ticks",
        lambda runtime, asked: _upcoming(runtime, asked, job=asked.path("job")),
        ("timezone", "ticks", "schedule"), _TICKS,
    ),
    Question(
        "/next", "next", "the upcoming ticks of all jobs, or of a schedule's text",
        lambda runtime, asked: _upcoming(runtime, asked, schedule=asked.text("schedule")),
        ("timezone", "ticks"), (*_TICKS, Parameter("schedule", "explain this text")), ("schedule",),
    ),
    Question(
        "/status", "status", "the scheduler at a glance",
        lambda runtime, _: answers.status(runtime),
        (
            *("root", "database", "problem", "enabled", "nodes", "jobs", "running", "next_ticks"),
            *("counts", "lag", "paused", "held", "troubled", "degraded", "orphaned"),
        ),
    ),
    Question(
        "/history", "history", "the newest runs, newest first", _history, ("runs",),
        (
            _JOB,
            Parameter("state", "only this state", many=True),
            _TAG,
            Parameter("since", _SINCE),
            Parameter("until", "before this time, written alike"),
            Parameter("node", "only of nodes whose id begins so"),
            Parameter("grep", "only with this in the error or message"),
            Parameter("before", "only runs older than this one", least=1),
            _NUMBER,
        ),
    ),
    Question(
        "/runs/{run}", "status RUN", "all about one run",
        lambda runtime, asked: answers.run(runtime, find_run(runtime, asked.id("run"))), ("run",),
    ),
    Question(
        "/runs/{run}/logs", "logs RUN", "what its attempts have logged",
        lambda runtime, asked: answers.logs(runtime, find_run(runtime, asked.id("run"))),
        ("attempts",),
    ),
    Question(
        "/nodes", "nodes", "the live schedulers, and those that went lately",
        lambda runtime, asked: answers.nodes(runtime, asked.text("gone") or "1d"), ("nodes",),
        (Parameter("gone", "those too that went within this time, 1d unless given"),),
    ),
    Question(
        "/stats", "stats", "how often jobs ran, succeeded, and how long and how late they were",
        lambda runtime, asked: answers.stats(
            runtime, asked.texts("job"), asked.text("since") or "7d"
        ),
        ("jobs",),
        (
            Parameter("job", "only this job", many=True),
            Parameter("since", "what was recorded within this time, 7d unless given"),
        ),
    ),
    Question(
        "/audit", "audit", "who did what by hand, newest first",
        lambda runtime, asked: answers.audit(
            runtime, asked.number("limit"), asked.number_or_none("before")
        ),
        ("entries",),
        (
            Parameter("limit", "how many at most", least=1, most=1000, default=20),
            Parameter("before", "only entries older than this one", least=1),
        ),
    ),
    Question(
        "/check", "check", "everything that is wrong or looks wrong",
        lambda runtime, asked: answers.check(runtime, diff=asked.flag("diff")),
        ("ok", "plugins", "jobs", "errors", "degraded", "warnings"),
        (Parameter("diff", "also what a start would change", flag=True),), ("changes",),
    ),
    Question(
        "/doctor", "doctor", "whether all that a scheduler needs is there and well",
        lambda runtime, _: answers.doctor(runtime), ("ok", "findings"),
    ),
    Question(
        "/plugins", "plugins", "where jobs come from, and which plugins are broken",
        lambda runtime, _: answers.plugins(runtime), ("plugins",),
    ),
    Question(
        "/config", "config show", "every setting and who set it; secrets are masked",
        lambda runtime, _: answers.config(runtime), ("root", "settings", "jobs"),
    ),
)  # fmt: skip
"""Every question that the API answers. `keys` are those of each answer, `sometimes` of a few."""


def answer(value: dict[str, Any], status: int = 200) -> Response:
    """Return an answer of the API."""
    return Response(answers.dumps(value) + "\n", status, media_type="application/json")


def routes() -> list[Route]:
    """Return the API's routes; all of them only read."""
    asked = [
        Route(question.path.replace("{run}", "{run:int}"), question.respond)
        for question in QUESTIONS
    ]
    return [*asked, Route("/openapi.json", _described)]


def _described(request: Request) -> Response:
    return answer(document(QUESTIONS, f"{root_of(request.scope)}/api"))
