"""`doctor`: whether all that a scheduler needs is there and well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._failures import FAILED
from ._options import as_json
from ._shapes import print_json
from ._text import paragraph, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from systemprompt_jobs.model import Finding

    from ._session import Session


@click.command("doctor")
@as_json
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say whether all that a scheduler needs is there and well.

    Each finding comes with its remedy. Exit code 1: something is wrong.
    """
    session: Session = ctx.obj
    findings = session.runtime().examine()
    if as_json:
        print_json(_answer(findings))
    else:
        for finding in findings:
            _show(finding)
    if not _all_well(findings):
        ctx.exit(FAILED)


def _all_well(findings: Sequence[Finding]) -> bool:
    return all(finding.ok for finding in findings)


def _answer(findings: Sequence[Finding]) -> dict[str, Any]:
    return {"ok": _all_well(findings), "findings": [_shape(finding) for finding in findings]}


def _shape(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "ok": finding.ok,
        "said": finding.said,
        "remedy": finding.remedy,
    }


def _show(finding: Finding) -> None:
    mark = "✓ " if finding.ok else "✗ "
    say(paragraph(f"{finding.subject}: {finding.said}", "  ", mark))
    if finding.remedy:
        say(paragraph(finding.remedy, "    "))
