"""What `new-plugin` makes is installed by pip and passes everything it comes with."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PATIENCE_S = 300


def test_a_new_plugin_passes_its_tests_and_every_check_at_once(tmp_path):
    """The environment borrows the libraries of the one that runs the tests, but no `src` folder."""
    bin_ = environment(tmp_path / "venv")
    ours = [bin_ / "python", "-m", "systemprompt_jobs.builtin.cli", "infra", "jobs"]
    call(tmp_path, *ours, "new-plugin", "acme-inbox")
    plugin = tmp_path / "acme-inbox"
    pip = [bin_ / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    call(plugin, *pip, "--no-deps", "--no-build-isolation", "--editable", ".")

    assert " passed" in call(plugin, bin_ / "python", "-m", "pytest")
    call(plugin, sys.executable, "-m", "ruff", "check")
    call(plugin, sys.executable, "-m", "ruff", "format", "--check")
    call(plugin, bin_ / "python", "-m", "mypy")
    assert call(plugin, *ours, "check") == "1 plugin, 1 job, all well\n"

    call(tmp_path, *ours, "init", "demo")
    said = call(tmp_path / "demo", *ours, "run", "acme-inbox:count_files", "-p", "limit=9")
    assert "succeeded  acme-inbox:count_files" in said


def environment(folder):
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    borrowed = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (site / "borrowed.pth").write_text(borrowed, encoding="utf-8")
    return folder / "bin"


def call(folder, *command):
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"SYSTEMPROMPT_PLUGINS": "acme-inbox", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
