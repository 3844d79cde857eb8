"""Find the project: its root folder and the two files that configure the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..model import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG = Path("services/scheduler/config.yaml")
PROFILE = Path("profile.yaml")
VARIABLE = "SYSTEMPROMPT_ROOT"


@dataclass(frozen=True, slots=True)
class Project:
    """A root folder and those of the two files that exist in it."""

    root: Path
    config: Path | None = None
    profile: Path | None = None

    @property
    def found(self) -> bool:
        """Whether there is a file to read."""
        return self.config is not None or self.profile is not None


def find_project(root: Path | str | None, environ: Mapping[str, str], cwd: Path) -> Project:
    """Return the project of `root`, else of SYSTEMPROMPT_ROOT, else the first one above `cwd`.

    Without any of them the project is `cwd` itself, with no files. Raises ConfigurationError
    for an explicit root that is not a folder.
    """
    if root is not None:
        return _at(_folder("--root", root, cwd))
    if explicit := environ.get(VARIABLE):
        return _at(_folder(VARIABLE, explicit, cwd))
    cwd = cwd.resolve()
    above = (_at(folder) for folder in (cwd, *cwd.parents))
    return next((project for project in above if project.found), Project(cwd))


def _folder(culprit: str, root: Path | str, cwd: Path) -> Path:
    try:
        folder = (cwd / root).resolve()
        if folder.is_dir():
            return folder
        reason = "is not a folder" if folder.exists() else "does not exist"
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = f"cannot be used: {error}"
    problem = Problem(culprit, f"{str(root)!r} {reason}", remedy="name the project's root folder")
    raise ConfigurationError([problem])


def _at(root: Path) -> Project:
    config, profile = root / CONFIG, root / PROFILE
    return Project(
        root, config if _present(config) else None, profile if _present(profile) else None
    )


def _present(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # There may be a file that we must not see: reading it says so, silence would hide it.
        return True
    return True
