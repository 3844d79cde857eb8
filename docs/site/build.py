"""Builds the site of the documentation: `python docs/site/build.py FOLDER`.

The pages are written to be read where they lie, so their links lead to READMEs of plugins and to
tests as well. Here all of these come together in one folder, of which zensical makes the site; a
link that leads nowhere is an error. The menu follows docs/index.md, which names every page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import systemprompt_jobs
from systemprompt_jobs import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MENU = {
    "tutorial": "Tutorial",
    "how-to": "How to",
    "reference": "Reference",
    "plugins": "Plugins",
    "explanation": "Explanation",
    "decisions": "Decisions",
    "project": "Project",
}
"""Folder of the site → what the menu calls it, in this order."""

_LINK = re.compile(r"(\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"^( *```.*?^ *```)$", re.DOTALL | re.MULTILINE)
_DOCSTRINGS = "reference/docstrings.md"


def build(folder: Path) -> None:
    """Build the site in `folder`, over what is there. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as work:
        stage = Path(work)
        for page in pages():
            _write(stage / "pages" / place(page), _moved(page, stage / "pages"))
        _write(stage / "pages" / _DOCSTRINGS, _docstrings())
        (stage / "zensical.toml").write_text(_settings(), "utf-8")
        zensical = Path(sys.executable).with_name("zensical")
        subprocess.run([zensical, "build", "--clean", "--strict"], cwd=stage, check=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stage / "site", folder)


def pages() -> list[Path]:
    """Return the files of all pages."""
    others = (ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))
    return [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("plugins/*/README.md")), *others]


def place(file: Path) -> str:
    """Return where in the site a file of the project is."""
    if file.is_relative_to(DOCS) and file.suffix == ".md":
        return str(file.relative_to(DOCS))
    if file.name == "README.md" and file.parent != ROOT:
        return f"plugins/{file.parent.name}.md"
    if file.suffix == ".md":
        return f"project/{file.name.lower()}"
    return f"source/{file.relative_to(ROOT)}.txt"  # a browser shows it


def _moved(page: Path, site: Path) -> str:
    """Return the text of a page with links that fit its place in the site."""
    here = Path(place(page)).parent

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        there = (page.parent / target).resolve()
        if ":" in target or not there.is_relative_to(ROOT):
            return match.group()
        if there.suffix != ".md":
            _write(site / place(there), there.read_text("utf-8"))
        return f"{text}{os.path.relpath(place(there), here)}{anchor or ''})"

    parts = _CODE.split(page.read_text("utf-8"))
    return "".join(part if n % 2 else _LINK.sub(link, part) for n, part in enumerate(parts))


def _docstrings() -> str:
    """Return the page made of the docstrings of all that is public."""
    names = [name for name in systemprompt_jobs.__all__ if not name.startswith("__")]
    text = "# Docstrings\n\nWhat `help()` says of each public name, as it is in the code.\n\n"
    return text + "".join(f"## {name}\n\n::: systemprompt_jobs.{name}\n\n" for name in names)


def _settings() -> str:
    """Return zensical's configuration: JSON's texts and lists are TOML's too."""
    menu = [{"Start": "index.md"}]
    menu += [{title: _entries(folder)} for folder, title in MENU.items()]
    text = (DOCS / "site" / "zensical.toml").read_text("utf-8")
    entries = ", ".join(f"{{ {json.dumps(k)} = {_toml(v)} }}" for e in menu for k, v in e.items())
    return text.replace("@VERSION@", __version__).replace("@MENU@", f"[{entries}]")


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _entries(folder: str) -> list[str]:
    """Return the pages of a folder in the order in which the index names them."""
    index = (DOCS / "index.md").read_text("utf-8")
    linked = [place((DOCS / target).resolve()) for _, target, _ in _LINK.findall(index)]
    found = [place(page) for page in pages()]
    rest = [_DOCSTRINGS, *found]
    ordered = dict.fromkeys(path for path in [*linked, *rest] if path.startswith(f"{folder}/"))
    return list(ordered)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
