"""The site that `make docs` builds: every page, no link that leads nowhere, nothing from outside."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import systemprompt_jobs

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.ids = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        if tag == "a":
            self.links.add(values.get("href") or "")
        elif tag != "link" or values.get("rel") in {"stylesheet", "preload", "icon"}:
            self.loaded |= {values[name] for name in ("src", "href") if values.get(name)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "built"
    command = [sys.executable, ROOT / "docs" / "site" / "build.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file.read_text("utf-8")) for file in site.rglob("*.html")}


def test_every_page_is_there_and_in_the_menu(site, pages):
    sources = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("plugins/*/README.md")]
    assert len(pages) >= len(sources) > 40
    menu = {(site / link).resolve() for link in pages[site / "index.html"].links if ":" not in link}
    folders = {file.parent.name for file in menu}
    assert {"tutorial", "how-to", "reference", "plugins", "explanation", "decisions"} <= folders


def test_no_link_leads_nowhere_not_even_into_a_page(pages):
    broken = defaultdict(list)
    for file, page in pages.items():
        if file.name == "404.html":  # its links count from the top of the server
            continue
        for link in page.links:
            target = urlsplit(unquote(link))
            if target.scheme:
                continue
            there = (file.parent / target.path).resolve() if target.path else file
            known = pages[there].ids if there in pages else set()
            if not there.is_file() or (target.fragment and target.fragment not in known):
                broken[file.name].append(link)
    assert dict(broken) == {}


def test_nothing_is_loaded_from_outside(site, pages):
    loaded = {source for page in pages.values() for source in page.loaded}
    assert loaded
    assert [source for source in loaded if urlsplit(source).netloc] == []
    styles = "".join(file.read_text("utf-8") for file in site.rglob("*.css"))
    assert "url(http" not in styles
    assert "url(//" not in styles


def test_each_public_name_has_its_docstring_in_the_reference(site, pages):
    names = {name for name in systemprompt_jobs.__all__ if not name.startswith("__")}
    page = site / "reference" / "docstrings.html"
    assert {name.lower() for name in names} <= pages[page].ids
    assert "Run jobs here and now, and return their runs when all have ended." in page.read_text()
