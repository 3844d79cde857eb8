"""The page of errors leaves none out, and what it shows is what is said."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from systemprompt_jobs import Runtime, errors
from systemprompt_jobs.builtin.cli import _failures

PAGE = (Path(__file__).parents[1] / "docs/reference/errors.md").read_text("utf-8")
ERRORS = [kind for kind in vars(errors).values()
          if inspect.isclass(kind) and kind.__module__ == errors.__name__]  # fmt: skip


def row(kind):
    def fail():
        raise kind([] if kind is errors.ConfigurationError else "text")

    bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
    says = inspect.getdoc(kind).partition("\n")[0].rstrip(".")
    code = _failures.exit_code(fail) if issubclass(kind, errors.JobsError) else ""
    return f"| `{kind.__name__}` | {bases} | {says} | {code} |"


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_has_its_row_with_bases_meaning_and_exit_code(kind):
    assert row(kind) in PAGE


def test_each_exit_code_is_described():
    codes = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    failures = (_failures.FAILED, _failures.WRONG_USE, _failures.NO_DATABASE, _failures.INTERRUPTED)
    assert [int(code) for code in codes] == [0, *failures]


def test_the_wrong_hook_is_degraded_with_the_words_of_the_page(tmp_path):
    (name, code) = re.search(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL).groups()
    (tmp_path / name).write_text(code)
    (tmp_path / name).chmod(0o644)
    (tmp_path / "profile.yaml").write_text(f"scheduler: {{local_plugins: [{name}]}}")
    (problem,) = Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": ""}).degraded
    place = f"{problem.place.file.name}:{problem.place.line}"
    said = f"{problem.culprit}: {problem.reason}\n  at {place}\n  {problem.remedy}\n"
    assert f"```text\n{said}```" in PAGE


def test_each_reason_in_the_table_is_one_that_the_code_gives():
    source = "".join(
        file.read_text() for file in (Path(errors.__file__).parent / "_collect").glob("*.py")
    )
    literal = re.sub(r"\{[^}]*\}", "…", source)
    reasons = re.findall(r"^\| ([^`|].*?) \| ", PAGE.partition("| reason |")[2], re.MULTILINE)
    assert len(reasons) == 9
    for reason in reasons[:-1]:
        assert re.sub(r"'…'", "…", reason) in literal.replace("'…'", "…"), reason
