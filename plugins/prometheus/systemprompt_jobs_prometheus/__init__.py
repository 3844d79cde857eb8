"""Metrics for Prometheus: moved by lifecycle hooks, served at `/metrics` on the health port.

`Metrics` is the plugin. Installed, it is loaded by itself and configured by two environment
variables; a program that embeds a `Runtime` may hand it one with a registry of its own.
"""

from ._plugin import Metrics

__all__ = ["Metrics"]
