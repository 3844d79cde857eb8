"""Which local code may load: files and packages that nobody else may write to."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from .._parameters import shown

if TYPE_CHECKING:
    from pathlib import Path


def refusal(root: Path, text: object) -> str:
    """Return why an item of `local_plugins` is not loaded, empty if it may be."""
    if not isinstance(text, str) or not text:
        return f"is {shown(text)}, not a path"
    reason = _refusal(root / text)
    return reason and f"{root / text} {reason}"


def _refusal(path: Path) -> str:
    try:
        if path.is_dir():
            if not (path / "__init__.py").is_file():
                return "is a folder without an __init__.py"
            return next(filter(None, map(_exposure, (path, *sorted(path.rglob("*"))))), "")
        if not path.is_file():
            return "does not exist"
        return "is no .py file" if path.suffix != ".py" else _exposure(path)
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"


def _exposure(path: Path) -> str:
    if path.stat().st_mode & stat.S_IWOTH:
        return f"is refused because everybody may write to {path}: chmod o-w {path}"
    return ""
