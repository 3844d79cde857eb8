"""Configure: layers of settings and what plugins declared → Plans, each value with its source.

`_project` finds the files, `_yaml` reads them with line numbers, `_schema` says what may stand
in them, `_layers` holds what each layer gives, `_settings` lays them over each other, `_plans`
decides for each job, and `_sections` tells plugins what is said of them.
"""

from __future__ import annotations

from ._json_schema import json_schema
from ._layers import Entry
from ._lint import lint
from ._plans import make_plans, make_warnings
from ._project import CONFIG, PROFILE, Project, find_project
from ._sections import Heard, tell_plugins
from ._settings import Settings, in_file_order, load_settings
from ._yaml import parse_value

__all__ = [
    "CONFIG",
    "PROFILE",
    "Entry",
    "Heard",
    "Project",
    "Settings",
    "find_project",
    "in_file_order",
    "json_schema",
    "lint",
    "load_settings",
    "make_plans",
    "make_warnings",
    "parse_value",
    "tell_plugins",
]
