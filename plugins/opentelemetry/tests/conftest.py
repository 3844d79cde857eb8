"""A project with jobs, and a telemetry whose spans and metrics a test can read."""

from __future__ import annotations

from datetime import timedelta

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from systemprompt_jobs_opentelemetry import Telemetry

from systemprompt_jobs import Runtime

JOBS = """
from opentelemetry import trace
from systemprompt_jobs import JobResult, Skip, job

def step():
    trace.get_tracer("app").start_span("step").end()

@job
def works(ctx):
    ctx.log.warning("at work")
    step()

@job(name="works-async")
async def works_async(ctx):
    ctx.log.warning("at work")
    step()

@job
def fails():
    raise ValueError("no luck")

@job
def declares():
    return JobResult.failure("3 of 4 mails bounced")

@job
def skips():
    raise Skip("nothing new")

@job(timeout="1s", executor="asyncio")
async def hangs():
    import asyncio
    await asyncio.Event().wait()

@job(max_attempts=2, retry_delay="0s", retry_past_next_tick=True)
def tries(ctx):
    if ctx.run.attempt == 1:
        raise OSError("not yet")
"""

CONFIG = """
scheduler:
  local_plugins: [jobs.py]
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "services" / "scheduler"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (tmp_path / "jobs.py").write_text(JOBS)
    return tmp_path


class Traced:
    """A runtime whose telemetry goes into memory."""

    def __init__(self, root):
        self._spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader])
        self.telemetry = Telemetry(self.tracer_provider, meters)
        environ = {"SYSTEMPROMPT_PLUGINS": ""}
        self.runtime = Runtime(root, plugins=[self.telemetry], environ=environ)

    def run(self, *jobs):
        """Run jobs to their ends; return the runs, and the spans of attempts by job."""
        runs = self.runtime.run(*jobs)
        return runs, self.spans()

    def spans(self):
        return self._spans.get_finished_spans()

    def points(self, name):
        """Return the data points of a metric by their attributes, without our prefix."""
        data = self._reader.get_metrics_data()
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        (metric,) = [m for m in metrics if m.name == f"systemprompt_jobs.{name}"]
        return metric, {
            tuple(
                sorted((k.removeprefix("systemprompt_jobs."), v) for k, v in p.attributes.items())
            ): p
            for p in metric.data.data_points
        }


@pytest.fixture
def traced(project):
    made = Traced(project)
    yield made
    made.runtime.stop(timedelta(0))
