"""`python -m systemprompt_jobs.builtin.cli`, for where the console script is not on the path."""

import sys

from . import command_line

sys.exit(command_line())
