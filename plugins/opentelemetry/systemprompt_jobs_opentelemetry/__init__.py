"""A span for each attempt, and metrics of runs, by the API of OpenTelemetry.

Where they go is for the SDK to say that the process has configured: without one nothing is made.
"""

from __future__ import annotations

from ._plugin import Telemetry

__all__ = ["Telemetry"]
