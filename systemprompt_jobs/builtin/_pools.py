"""What the executors of this package share."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta


def seconds(key: str, value: object) -> float:
    """Return a duration such as `2s` in seconds. Raises ValueError."""
    from pydantic import TypeAdapter, ValidationError

    from systemprompt_jobs import Duration

    try:
        duration: timedelta = TypeAdapter(Duration).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{key}: {error.errors()[0]['msg'].partition(', ')[2]}") from None
    return duration.total_seconds()


def known(settings: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return `settings` over `defaults`. Raises ValueError for a key that has none."""
    for key in settings:
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(defaults)}"
            raise ValueError(f"unknown key {key!r} ({hint})")
    return {**defaults, **settings}
