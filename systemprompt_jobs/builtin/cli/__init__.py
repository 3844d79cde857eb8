"""The command line: `systemprompt infra jobs …`. It lives on the public `Runtime`.

Each command is a module of its own that loads when it is used, so that `--help` is quick:
`_app` names them, `_lazy` loads them, `_session` makes the runtime, `_failures` turns errors
into messages and exit codes, `_shapes` gives JSON and `_table` tables.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["command_line", "main"]


def command_line() -> int:
    """Run the command of this process; return the exit code, with which the process ends soon."""
    from ._leave import end_soon

    code = main()
    end_soon(code)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (else those of the process) say; return its exit code."""
    from ._app import systemprompt
    from ._failures import exit_code

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a symbol must not end a command
            stream.reconfigure(errors="backslashreplace")
    return exit_code(
        lambda: systemprompt.main(arguments, prog_name="systemprompt", standalone_mode=False)
    )
