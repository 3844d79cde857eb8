"""Spans and metrics as an exporter gets them, of real runs and of hooks called by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import timedelta
from queue import SimpleQueue

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode
from systemprompt_jobs_opentelemetry import Telemetry
from systemprompt_jobs_opentelemetry._flush import Flusher

from plugins.opentelemetry.tests.conftest import JOBS
from plugins.prometheus.tests.support import NODE, NOON, run
from systemprompt_jobs import Report, Runtime
from systemprompt_jobs.model import State

PREFIX = "systemprompt_jobs."


def own(span):
    return {k.removeprefix(PREFIX): v for k, v in span.attributes.items() if k.startswith(PREFIX)}


# --- spans ---


def test_an_attempt_is_a_span_named_after_its_job_with_the_conventions_attributes(traced):
    (done,), (span,) = traced.run("works")
    assert span.name == "jobs:works"
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["code.function.name"].endswith(".works")
    assert span.attributes["code.file.path"].endswith("/jobs.py")
    assert own(span) == {
        "job.id": "jobs:works",
        "run.id": done.id,
        "run.trigger": "manual",
        "run.node": done.node,
        "run.enforce": False,
        "attempt.number": 1,
        "attempt.max": 1,
        "attempt.outcome": "succeeded",
    }


@pytest.mark.parametrize(
    ("job", "outcome", "error_type", "said"),
    [
        ("fails", "failed", "ValueError", "ValueError: no luck"),
        ("declares", "failed", "declared", "3 of 4 mails bounced"),
        ("hangs", "cancelled", "asyncio.exceptions.CancelledError", "asyncio"),
        ("skips", "skipped", None, None),
    ],
)
def test_an_end_is_told_by_outcome_error_type_and_status(traced, job, outcome, error_type, said):
    _, (span,) = traced.run(job)
    assert own(span)["attempt.outcome"] == outcome
    assert span.attributes.get("error.type") == error_type
    assert (span.status.status_code is StatusCode.ERROR) == (error_type is not None)
    assert (span.status.description or "").startswith(said or "")


def test_the_exception_is_recorded_with_its_traceback(traced):
    _, (span,) = traced.run("fails")
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes["exception.message"] == "no luck"
    assert 'raise ValueError("no luck")' in event.attributes["exception.stacktrace"]


def test_each_attempt_has_a_span_and_keeps_its_ids(traced):
    (done,), spans = traced.run("tries")
    assert [own(span)["attempt.number"] for span in spans] == [1, 2]
    assert [own(span)["attempt.outcome"] for span in spans] == ["failed", "succeeded"]
    kept = [attempt.annotations for attempt in traced.runtime.attempts(done)]
    assert kept == [ids_of(span) for span in spans]


def ids_of(span):
    return {
        "trace_id": trace.format_trace_id(span.context.trace_id),
        "span_id": trace.format_span_id(span.context.span_id),
    }


@pytest.mark.parametrize("job", ["works", "works-async"])
def test_the_span_is_current_and_its_ids_are_in_the_log_lines(traced, monkeypatch, job):
    """In a thread and in a task; afterwards neither is."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", traced.tracer_provider)
    logged = []

    def keep(_logger, _method, event):
        logged.append(dict(event))
        raise structlog.DropEvent

    old = structlog.get_config()
    structlog.configure([structlog.contextvars.merge_contextvars, keep])
    try:
        _, spans = traced.run(job)
    finally:
        structlog.configure(**old)
    inner, outer = spans
    assert inner.name == "step"
    assert inner.parent.span_id == outer.context.span_id
    (line,) = [event for event in logged if event["event"] == "at work"]
    assert line.items() >= ids_of(outer).items()
    assert "trace_id" not in structlog.contextvars.get_contextvars()


def test_without_an_sdk_or_unsampled_nothing_is_kept_and_the_job_runs(project):
    for provider in (trace.NoOpTracerProvider(), TracerProvider(sampler=ALWAYS_OFF)):
        telemetry = Telemetry(provider)
        runtime = Runtime(project, plugins=[telemetry], environ={"SYSTEMPROMPT_PLUGINS": ""})
        (done,) = runtime.run("works")
        (attempt,) = runtime.attempts(done)
        runtime.stop()
        assert done.state is State.SUCCEEDED
        assert attempt.annotations == {}


class Broken(SpanProcessor):
    """A processor of somebody's that fails."""

    def __init__(self, *, at_start):
        self._at_start = at_start

    def on_start(self, span, parent_context=None):
        if self._at_start:
            raise OSError("no exporter")

    def on_end(self, span):
        raise OSError("no exporter")


@pytest.mark.parametrize("at_start", [True, False])
def test_a_tracer_that_fails_is_logged_and_fails_no_run(traced, at_start):
    traced.tracer_provider.add_span_processor(Broken(at_start=at_start))
    with structlog.testing.capture_logs() as logged:
        (done,), _ = traced.run("works")
    assert done.state is State.SUCCEEDED
    assert {"span_failed"} <= {event["event"] for event in logged}


# --- metrics ---


def test_runs_are_counted_by_outcome_and_timed(traced):
    traced.run("works", "fails", "tries")
    traced.runtime.stop()
    _, runs = traced.points("runs")
    good = (("job.id", "jobs:works"), ("run.outcome", "succeeded"))
    bad = (("error.type", "ValueError"), ("job.id", "jobs:fails"), ("run.outcome", "failed"))
    assert runs[good].value == runs[bad].value == 1
    metric, durations = traced.points("run.duration")
    assert metric.unit == "s"
    assert durations[good].count == 1
    assert durations[good].explicit_bounds[-1] == 14_400
    _, retries = traced.points("run.retries")
    assert retries[("job.id", "jobs:tries"),].value == 1
    _, active = traced.points("run.active")
    assert {point.value for point in active.values()} == {0}


def test_active_lateness_skips_and_misses_are_told_by_hooks(traced):
    job = (("job.id", "ext:job"),)

    def value(name):
        return traced.points(name)[1][job].value

    hooks = traced.telemetry
    hooks.run_started(run(1, started=NOON + timedelta(seconds=2)))
    hooks.run_started(run(1))  # told twice
    hooks.run_started(run(2, attempt=2))
    hooks.run_started(run(3, tick=None))
    assert value("run.active") == 3
    assert traced.points("run.lateness")[1][job].sum == 2
    lost, failed = (Report(state, NOON, NOON) for state in (State.LOST, State.FAILED))
    hooks.run_retrying(run(1, state=State.PENDING, node=""), lost)  # it ran elsewhere
    assert value("run.active") == 3
    hooks.run_retrying(run(1, state=State.PENDING, node=""), failed)
    hooks.run_fenced(run(2))
    assert value("run.active") == 1
    hooks.scheduler_stopped(NODE)
    assert value("run.active") == 0
    hooks.run_cancelled(run(4, state=State.CANCELLED, attempt=0))
    _, runs = traced.points("runs")
    assert runs[(*job, ("run.outcome", "cancelled"))].value == 1
    hooks.tick_missed(run(5, count=40))
    hooks.tick_skipped(run(6, count=7, reason="paused"))
    assert value("tick.misses") == 40
    _, skips = traced.points("tick.skips")
    assert skips[(*job, ("run.reason", "paused"))].value == 7


# --- worker processes ---

TRACING = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

def line(span):
    return span.to_json(indent=None) + "\\n"

spans = open("SPANS", "a")
exporter = ConsoleSpanExporter(out=spans, formatter=line)
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
trace.set_tracer_provider(provider)
"""
"""Exports once an hour, unless asked to."""


def test_in_a_worker_process_spans_are_made_there_and_exported_before_it_is_killed(project):
    spans, kept = project / "spans", project / "kept"
    config = project / "services" / "scheduler" / "config.yaml"
    config.write_text(
        "scheduler:\n"
        "  local_plugins: [jobs.py, tracing.py]\n"
        "  executors: {apart: {kind: processes, size: 1}}\n"
        "  jobs: [{extension: jobs, job: works, executor: apart}]\n"
    )
    (project / "tracing.py").write_text(TRACING.replace("SPANS", str(spans)))
    code = (
        "import json, time; from pathlib import Path; from systemprompt_jobs import Runtime\n"
        f"r = Runtime({str(project)!r}, environ={{'SYSTEMPROMPT_PLUGINS': 'opentelemetry'}})\n"
        "(run,) = r.run('works')\n"
        "(attempt,) = r.attempts(run)\n"
        f"Path({str(kept)!r}).write_text(json.dumps([dict(attempt.annotations), attempt.log]))\n"
        f"spans = Path({str(spans)!r})\n"
        "while not spans.exists() or spans.read_text().count(chr(10)) < 2: time.sleep(0.01)\n"
        "import os; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=180)
    inner, outer = map(json.loads, spans.read_text().splitlines())
    assert (inner["name"], outer["name"]) == ("step", "jobs:works")
    assert inner["parent_id"] == outer["context"]["span_id"]
    ids = {name: outer["context"][name].removeprefix("0x") for name in ("trace_id", "span_id")}
    annotations, log = json.loads(kept.read_text())
    assert annotations == ids
    assert all(f"{name}={value}" in log for name, value in ids.items())


def test_a_flush_that_hangs_or_fails_keeps_nobody_waiting():
    calls, go_on = SimpleQueue(), threading.Event()

    def flush():
        calls.put("begun")
        go_on.wait(30)
        raise OSError("no collector")

    flusher = Flusher(flush)
    flusher.soon()
    assert calls.get(timeout=30) == "begun"
    for _ in range(100):
        flusher.soon()
    assert calls.empty()
    go_on.set()
    assert calls.get(timeout=30) == "begun"  # for all hundred at once, after one that failed


# --- as it is installed ---


def test_installed_it_is_loaded_by_itself_and_imports_nothing_heavy_until_needed(project):
    code = (
        "import sys; from systemprompt_jobs import Runtime\n"
        f"r = Runtime({str(project)!r}, environ={{'SYSTEMPROMPT_PLUGINS': 'opentelemetry'}})\n"
        "assert [str(p) for p in r.degraded] == []\n"
        "assert 'systemprompt_jobs_opentelemetry' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    (project / "jobs.py").write_text(JOBS.replace("from opentelemetry import trace\n", ""))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=180)
