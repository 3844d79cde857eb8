"""What no module of ours does, so that neither a file nor a database can bring code."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = [
    file
    for folder in (ROOT / "systemprompt_jobs", ROOT / "plugins")
    for file in folder.rglob("*.py")
    if "tests" not in file.parts
]
BRING_CODE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
BRINGS_OBJECTS = {"load", "load_all", "full_load", "unsafe_load", "Loader", "UnsafeLoader"}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def test_nothing_reads_or_writes_pickles():
    assert len(MODULES) > 150
    found = {file.name: BRING_CODE & {*imports(ast.parse(file.read_text()))} for file in MODULES}
    assert {name: names for name, names in found.items() if names} == {}


def test_yaml_is_read_by_the_safe_loader_only():
    used = {
        (node.value.id, node.attr)
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    of_yaml = {name for module, name in used if module == "yaml"}
    assert "SafeLoader" in of_yaml
    assert of_yaml & BRINGS_OBJECTS == set()
