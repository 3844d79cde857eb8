"""The page on executors names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from systemprompt_jobs.testing import ExecutorContract

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "executors.md"


def test_each_test_that_the_page_names_exists():
    files = [
        *Path(__file__).parent.glob("test_*.py"),
        PAGE.parents[2] / "tests/cli/test_shutdown.py",
    ]
    here = "".join(path.read_text("utf-8") for path in files)
    named = re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > 20
    assert [n for n in named if f"def {n}(" not in here and not hasattr(ExecutorContract, n)] == []
