"""Collect: plugins → (extension, Job). A broken plugin is degraded; the others load.

`_find` says where plugins come from, `_load` brings one into the plugin manager, `_jobs` takes
its jobs. A plugin is loaded whole or not at all. pluggy's own loader stops at the first broken
entry point, lets SystemExit through and drops the second plugin of a name in silence, so each
is loaded here one at a time.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import redirect_stdout
from itertools import chain
from typing import TYPE_CHECKING

from ..model import CollectedJob, Collection, Extension, Problem
from ._find import Candidate, choose, installed, local, named, unknown_allowed, unknown_blocked
from ._jobs import check_job, jobs_of, names_taken
from ._load import load, problem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pluggy

__all__ = ["collect"]


def collect(
    manager: pluggy.PluginManager,
    *,
    modules: Sequence[object] = (),
    files: Sequence[Path] = (),
    blocked: Iterable[str] = (),
    allowed: str | None = None,
) -> Collection:
    """Load every plugin into `manager` and return what they brought.

    - `modules`: entry-point names or modules of `--plugin`, or plugins themselves; raises
      UsageError for a name that nothing has.
    - `files`: the project's `local_plugins`.
    - `blocked`: names of `--no-plugin`.
    - `allowed`: the text of `SYSTEMPROMPT_PLUGINS`, which limits auto-loading of installed
      plugins to these comma-separated names; None loads all, empty none.
    """
    candidates = [*installed(), *map(local, files)]
    once = [module for i, module in enumerate(modules) if module not in modules[:i]]
    wanted = [named(module, candidates) for module in once]
    unwanted = frozenset(blocked)
    chosen, kept_out = choose(candidates, wanted, unwanted, allowed)
    unknown = unknown_allowed(allowed, candidates), unknown_blocked(unwanted, candidates + wanted)
    degraded = {problem.culprit: problem for problem in chain(*unknown)}
    jobs: dict[str, CollectedJob] = {}
    taken = Counter(candidate.name for candidate in chosen)
    for candidate in chosen:
        if taken[candidate.name] > 1:
            degraded[candidate.name] = _name_clash(candidate, chosen)
            continue
        try:
            with redirect_stdout(sys.stderr):  # a plugin's print() must not spoil our output
                plugin = load(manager, candidate)
                found = list(dict.fromkeys(jobs_of(manager, plugin)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # sys.exit() at import must not end us
            if manager.has_plugin(candidate.name):
                manager.unregister(name=candidate.name)
            degraded[candidate.name] = problem_of(candidate, error)
        else:
            names = names_taken(found)
            for job in found:
                collected = jobs.setdefault(
                    f"{candidate.name}:{job.name}", CollectedJob(candidate.extension, job)
                )
                problem = check_job(collected, names)
                if problem is not None:
                    degraded[collected.id] = problem
    return Collection(_extensions(chosen), tuple(jobs.values()), tuple(kept_out), degraded)


def _extensions(chosen: Sequence[Candidate]) -> tuple[Extension, ...]:
    return tuple(candidate.extension for candidate in chosen)


def _name_clash(candidate: Candidate, chosen: Sequence[Candidate]) -> Problem:
    owners = [
        c.extension.distribution or c.extension.module for c in chosen if c.name == candidate.name
    ]
    return Problem(
        candidate.name,
        f"the name is taken by several plugins: {', '.join(sorted(owners))}",
        candidate.place,
        "uninstall or block all but one, or rename one",
    )
