"""Every error this package raises on purpose.

::

    JobsError
    ├── UsageError             something was asked for that does not exist or cannot be
    │   ├── UnknownJobError    no job of that name; near ones are named
    │   ├── AmbiguousJobError  a short name that several extensions share
    │   ├── ScheduleError      a schedule text that does not parse (also a ValueError)
    │   ├── ParameterError     a parameter that the job does not have or that does not fit
    │   └── ServiceError       `ctx.get` or `ctx.db_pool` asked for what is not configured
    ├── PluginError            a plugin's `attempt_context` did not let the attempt begin
    ├── ConfigurationError     everything wrong with the configuration, in one go
    └── StoreError             the database cannot be used right now (waiting may help)
        └── StoreUnusableError it will not get better by waiting: wrong path, newer schema

    RunCancelled               ends a job's function, and no `except Exception` there stops it
    DeclaredFailure            what plugins and services see of a `JobResult.failure()`
"""

from __future__ import annotations

import reprlib
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Problem


class JobsError(Exception):
    """Base of every error this package raises on purpose."""


class UsageError(JobsError):
    """Something was asked for that does not exist or cannot be."""


class UnknownJobError(UsageError, LookupError):
    """No job has this name; the message names near ones."""


class AmbiguousJobError(UsageError, LookupError):
    """Several extensions have a job of this short name; the message lists them."""


class ScheduleError(UsageError, ValueError):
    """A schedule text that does not parse: the message names field, value and remedy."""


class ParameterError(UsageError, ValueError):
    """A job parameter that is unknown, missing or does not fit its annotation."""


class ServiceError(UsageError, LookupError):
    """A job asked its context for a service or a database that is not configured."""


class PluginError(JobsError):
    """A plugin's `attempt_context` did not let an attempt begin; the message names the plugin."""


class ConfigurationError(JobsError):
    """Everything wrong with the configuration files, in one go.

    `problems` holds one entry for each mistake, in the order of the files.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StoreError(JobsError):
    """The database cannot be used right now; waiting may help."""


class StoreUnusableError(StoreError):
    """The database will not become usable by waiting; the message names the remedy."""


class RunCancelled(BaseException):  # no error, as KeyboardInterrupt
    """The run was cancelled: raised in the job's function by `ctx.check_cancelled()`.

    A BaseException, so that a job which logs every `Exception` and goes on ends all the same.
    """


class DeclaredFailure(Exception):  # noqa: N818  # the function has raised nothing
    """The function returned `JobResult.failure()`; the text is its message.

    Raised around it, so that `attempt_context` and services see that the attempt has failed.
    """


def text_of(error: BaseException) -> str:
    """Return `module.Type: text`, whatever the error's own `__str__` does."""
    if isinstance(error, SystemExit):
        return f"SystemExit: it called sys.exit({reprlib.repr(error.code)})"
    lines = traceback.format_exception_only(error)
    return next(line for line in lines if not line.startswith(" ")).strip()
