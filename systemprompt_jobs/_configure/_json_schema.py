"""The JSON Schema of the two files, made from the models that check them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._schema import JobEntry, Scheduler

if TYPE_CHECKING:
    from pydantic import BaseModel


def json_schema(*, shared: bool) -> dict[str, Any]:
    """Return the schema of config.yaml; where `shared`, of profile.yaml, which has other keys too."""
    scheduler = _of(Scheduler)
    scheduler["properties"]["jobs"] = {"type": "array", "items": {"$ref": "#/$defs/job"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "systemprompt-jobs",
        "type": "object",
        "properties": {"scheduler": scheduler},
        "additionalProperties": shared,
        "$defs": {
            "job": {**_of(JobEntry), "anyOf": [{"required": ["job"]}, {"required": ["name"]}]}
        },
    }


def _of(model: type[BaseModel]) -> dict[str, Any]:
    found = model.model_json_schema()
    return {
        "type": "object",
        "properties": {name: _given(value) for name, value in found["properties"].items()},
        "additionalProperties": False,
    }


def _given(value: dict[str, Any]) -> dict[str, Any]:
    """Return a property's schema: in the models, None is what is absent, never what is written."""
    given, _null = value["anyOf"]
    return dict(given)
