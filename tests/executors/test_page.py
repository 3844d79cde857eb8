"""The page on executors names tests that exist, each where it says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from systemprompt_jobs.testing import ExecutorContract

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "explanation" / "executors.md"
FILES = {
    "threads": "test_threads.py",
    "asyncio": "test_coroutines.py",
    "processes": "test_processes.py",
    "voice": "test_voice.py",
    "pools": "test_pools.py",
    "signals": "../test_signals.py",
    "shutdown": "../cli/test_shutdown.py",
}
NAMED = re.compile(r"\[?(\w+)(?:, \w+|\]\(\S+\))?: (`test_\w+`(?:, `test_\w+`)*)")


def test_each_test_that_the_page_names_is_where_it_says():
    texts = {place: (HERE / file).read_text("utf-8") for place, file in FILES.items()}
    texts["contract"] = inspect.getsource(ExecutorContract)
    page = PAGE.read_text("utf-8")
    named = [
        (place, test)
        for place, tests in NAMED.findall(page)
        for test in re.findall(r"`(\w+)`", tests)
    ]
    assert len(named) == page.count("`test_") > 20
    assert [(p, test) for p, test in named if f"def {test}(" not in texts[p]] == []
