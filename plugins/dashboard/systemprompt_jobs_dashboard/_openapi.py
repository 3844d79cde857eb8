"""The OpenAPI document of the API, made of the table of its questions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from systemprompt_jobs import __version__

from ._asked import LARGEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._api import Question
    from ._asked import Parameter

_IN_PATH = re.compile(r"{(\w+)}")
_REFUSALS = {
    "400": "the question is wrong; `error` says how to ask it",
    "404": "there is no such job or run",
    "503": "the database or the configuration cannot be read right now",
}
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}


def document(questions: Sequence[Question], root: str) -> dict[str, Any]:
    """Return the description of the API that is served at the path `root`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "systemprompt-jobs",
            "version": __version__,
            "description": "What the commands that only look answer with --json, word for word.",
        },
        "servers": [{"url": root}],
        "security": [{}, {"token": []}],
        "paths": {question.path: {"get": _operation(question)} for question in questions},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
    }


def _operation(question: Question) -> dict[str, Any]:
    return {
        "operationId": question.path.strip("/").replace("/", "_").translate({123: "", 125: ""}),
        "summary": f"`{question.command}`: {question.about}",
        "parameters": [*_of_path(question.path), *map(_of_query, question.parameters)],
        "responses": {
            "200": _response("the answer", _answer(question)),
            **{
                status: _response(about, {"$ref": "#/components/schemas/Error"})
                for status, about in _REFUSALS.items()
            },
            "401": {"description": "a token is needed", "content": {"text/plain": {}}},
        },
    }


def _response(about: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _answer(question: Question) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {} for name in (*question.keys, *question.sometimes)},
        "required": list(question.keys),
        "additionalProperties": False,
    }


def _of_path(path: str) -> Iterator[dict[str, Any]]:
    for name in _IN_PATH.findall(path):
        number = {"type": "integer", "minimum": 1, "maximum": LARGEST}
        schema = number if name == "run" else {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _of_query(parameter: Parameter) -> dict[str, Any]:
    schema = _schema(parameter)
    if parameter.many:
        schema = {"type": "array", "items": schema}
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.about,
        "schema": schema,
    }


def _schema(parameter: Parameter) -> dict[str, Any]:
    if parameter.flag:
        return {"type": "boolean"}
    if parameter.least is None:
        return {"type": "string"}
    schema = {"type": "integer", "minimum": parameter.least, "maximum": parameter.most}
    return schema if parameter.default is None else {**schema, "default": parameter.default}
