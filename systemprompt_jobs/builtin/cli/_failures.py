"""The one place where errors become messages and exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from systemprompt_jobs import errors
from systemprompt_jobs.builtin.signals import INTERRUPTED

from ._text import complain, many_lines

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED, WRONG_USE, NO_DATABASE = 1, 2, 3


def exit_code(command: Callable[[], object]) -> int:
    """Call `command`; return the exit code it asks for, or the one of the error it raises."""
    try:
        answer = command()
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED
    except click.UsageError as error:
        return _explain_use(error)
    except click.ClickException as error:
        complain(f"error: {error.format_message()}")
        return error.exit_code
    except errors.ConfigurationError as error:
        return _list_problems(error)
    except errors.JobsError as error:
        complain(f"error: {many_lines(str(error))}")
        return NO_DATABASE if isinstance(error, errors.StoreError) else WRONG_USE
    return answer if isinstance(answer, int) else 0


def _explain_use(error: click.UsageError) -> int:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and later
        complain(message)
        return WRONG_USE
    context = error.ctx
    if isinstance(error, click.NoSuchOption) and context is not None:
        root, option = context.find_root(), error.option_name
        if any(option in known.opts for known in root.command.params):
            message = f"{option} stands before the command: {root.info_name} {option} …"
            context = root
    complain(f"error: {message[:1].lower()}{message[1:]}")
    if context is not None:
        complain(f"see {context.command_path} --help")
    return WRONG_USE


def _list_problems(error: errors.ConfigurationError) -> int:
    if len(error.problems) == 1:
        complain(f"error: {error.problems[0]}")
        return WRONG_USE
    for problem in error.problems:
        complain(str(problem))
    complain(f"error: {len(error.problems)} mistakes in the configuration; nothing was started")
    return WRONG_USE
