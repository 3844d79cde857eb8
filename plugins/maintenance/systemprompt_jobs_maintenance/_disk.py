"""`disk_usage`: say how full file systems are, and fail above a limit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence  # noqa: TC003 - parameters are checked by annotation
from typing import Annotated

from pydantic import Field

from systemprompt_jobs import JobResult, job

from ._common import NOTHING, conclude


@job(schedule="0 */15 * * * *")
def disk_usage(
    *, paths: Sequence[str] = (), limit: Annotated[float, Field(ge=0, le=100)] = 90
) -> JobResult:
    """Report how full file systems are; fail above a limit in percent."""
    if not paths:
        return NOTHING
    usage: list[str] = []
    problems: list[str] = []
    for path in paths:
        try:
            percent = _percent(path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
            continue
        usage.append(f"{path} {percent:.1f} %")
        if percent > limit:
            problems.append(f"{path} is above the limit of {limit:g} %")
    return conclude(", ".join(usage) or "nothing measured", problems, len(usage))


def _percent(path: str) -> float:
    """Return what `df` shows: the used share of what users may fill, reserved blocks left out."""
    usage = shutil.disk_usage(path)
    available = usage.used + usage.free
    return 100 * usage.used / available if available else 0.0
