"""What the jobs share: ages, and what they say in the end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from systemprompt_jobs import Duration, JobResult

if TYPE_CHECKING:
    from collections.abc import Sequence

Age = Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=36_500))]

NOTHING = JobResult.success().with_message("nothing configured")
SHOWN = 5


def conclude(done: str, problems: Sequence[str], processed: int) -> JobResult:
    """Return a success that says what was done, or a failure that also says what went wrong."""
    if not problems:
        return JobResult.success().with_message(done).with_stats(processed=processed, failed=0)
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    message = "; ".join([done, f"{len(problems)} failed", *problems[:SHOWN], *more])
    return JobResult.failure(message).with_stats(processed=processed, failed=len(problems))


def counted(number: int, one: str, many: str) -> str:
    """Return e.g. `1 copy` or `12 copies`."""
    return f"{number} {one if number == 1 else many}"
