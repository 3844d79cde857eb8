"""Types for the annotations of parameters."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

from . import _durations

Duration = Annotated[timedelta, BeforeValidator(_durations.parse)]
"""A timedelta that YAML gives as `30s`, `12h`, `30d`, `1h30m` or a number of seconds.

A parameter annotated with a plain `timedelta` takes these by itself; fields of a model need
this type.
"""
