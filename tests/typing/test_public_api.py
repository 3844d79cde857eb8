"""The public API is typed as users of mypy --strict and of pyright need it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mypy import api

FILE = Path(__file__).with_name("public_api.py")
PYRIGHT = {
    "include": [str(FILE)],
    "typeCheckingMode": "strict",
    "reportUnnecessaryTypeIgnoreComment": "error",
}


def test_types_of_the_public_api_as_mypy_sees_them():
    """Every type in `public_api.py` is what it says; an ignore that is not needed is an error."""
    output, errors, status = api.run(["--strict", "--follow-imports=silent", str(FILE)])
    assert (status, errors) == (0, ""), output


def test_types_of_the_public_api_as_pyright_sees_them(tmp_path):
    """The same in the editors of most authors."""
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(PYRIGHT), encoding="utf-8")
    command = [Path(sys.executable).with_name("basedpyright"), "--outputjson", "-p", config]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    answer = json.loads(done.stdout)
    assert answer["generalDiagnostics"] == []
    assert (answer["summary"]["filesAnalyzed"], done.returncode) == (1, 0)
