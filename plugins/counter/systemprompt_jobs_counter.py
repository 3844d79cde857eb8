"""Counts runs and ticks: one hook implementation for each thing that can happen to a run.

The counts stand in `counts` and, if SYSTEMPROMPT_JOBS_COUNTER_FILE names a file, in that file,
as lines of `hook number`.
"""

import os
from collections import Counter
from pathlib import Path

from systemprompt_jobs import hookimpl, hookspecs

counts: Counter[str] = Counter()


def _counting(hook: str) -> object:
    def count() -> None:
        counts[hook] += 1
        if file := os.environ.get("SYSTEMPROMPT_JOBS_COUNTER_FILE"):
            part = Path(f"{file}.part")  # renamed when whole: nobody reads half a file
            part.write_text("".join(f"{name} {n}\n" for name, n in sorted(counts.items())))
            part.replace(file)

    return hookimpl(count)


hooks = [name for name in hookspecs.names() if name.startswith(("run_", "tick_"))]
globals().update({name: _counting(name) for name in hooks})
