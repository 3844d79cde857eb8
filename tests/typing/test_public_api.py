"""The public API is typed as users of mypy --strict need it."""

from __future__ import annotations

from pathlib import Path

from mypy import api


def test_types_of_the_public_api():
    """Every type in `public_api.py` is what it says; an ignore that is not needed is an error."""
    file = Path(__file__).with_name("public_api.py")
    output, errors, status = api.run(["--strict", "--follow-imports=silent", str(file)])
    assert (status, errors) == (0, ""), output
