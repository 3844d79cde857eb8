"""The page of faults tells which test shows what."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "explanation" / "faults.md"
LINE = re.compile(r"^\| .* \| \[(\w+)\]\((\S+)\) \|$", re.MULTILINE)
TEST = re.compile(r"^(?:def|class) (test_\w+|World)\b", re.MULTILINE)


def shown():
    return {((PAGE.parent / file).resolve(), name) for name, file in LINE.findall(PAGE.read_text())}


def test_each_line_of_the_page_names_a_test_that_there_is():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    heads = [line for line in lines if line.endswith("| test |")]
    assert len(shown()) == len(lines) - len(heads)
    for file, name in shown():
        assert name in TEST.findall(file.read_text())


def test_each_fault_that_is_tested_is_on_the_page():
    apart = {"test_checker.py", "test_documented.py"}
    files = [file for file in HERE.glob("test_*.py") if file.name not in apart]
    there = {(file, name) for file in files for name in TEST.findall(file.read_text())}
    assert there <= shown()
