"""`status RUN`: all about one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from systemprompt_jobs.secrets import masked

from ._runs import long_when, progress_text, said, state_cell
from ._shapes import attempt_shape, run_shape
from ._text import counted, indented, listed, many_lines, one_line, paragraph, say
from ._times import instant, took

if TYPE_CHECKING:
    from collections.abc import Iterator

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import AttemptOverview

_LOG_LINES, _TRACEBACK_LINES = 10, 15


def run_answer(runtime: Runtime, run: Run) -> dict[str, Any]:
    """Return all about a run as JSON has it."""
    attempts = [attempt_shape(attempt) for attempt in runtime.attempts(run)]
    return {"run": {**run_shape(run), "attempts": attempts}}


def show_run(runtime: Runtime, run: Run) -> None:
    """Print all about a run."""
    say(f"run {run.id} of {one_line(run.job_id)}: {state_cell(run).text}")
    for name, value in _facts(run):
        say(paragraph(str(value), " " * 14, f"  {name:<10}  "))
    for attempt in runtime.attempts(run):
        _show_attempt(attempt)


def _facts(run: Run) -> Iterator[tuple[str, object]]:
    yield "when", long_when(run)
    if run.distribution or run.version:
        yield "from", f"{run.distribution} {run.version}".strip()
    if run.node:
        yield "node", run.node
    if run.parent is not None:
        yield "repeats", f"run {run.parent}"
    if run.parameters:
        yield "parameters", masked(dict(run.parameters))
    yield "enforce", str(run.enforce).lower()
    if run.progress:
        yield "progress", progress_text(run.progress)
    if run.error or run.message:
        yield "message", said(run)


def _show_attempt(attempt: AttemptOverview) -> None:
    took_text = took(attempt.finished - attempt.started) if attempt.finished else ""
    how = listed(filter(None, (attempt.outcome or "running", took_text)))
    say("", f"Attempt {attempt.number}, {instant(attempt.started)} UTC: {how}")
    for name, value in attempt.annotations.items():
        say(f"  {one_line(name)}: {one_line(value)}")
    if attempt.error or attempt.message:
        say(paragraph(attempt.error or attempt.message, "  "))
    say(*indented(many_lines(attempt.traceback))[-_TRACEBACK_LINES:])
    _show_log(attempt)


def _show_log(attempt: AttemptOverview) -> None:
    lines = indented(many_lines(attempt.log))
    if not lines:
        return
    hidden = attempt.log_cut + max(0, len(lines) - _LOG_LINES)
    note = f", after {counted(hidden, 'line')} that `logs {attempt.run_id}` may show"
    say(f"  log{note if hidden else ''}")
    say(*lines[-_LOG_LINES:])
