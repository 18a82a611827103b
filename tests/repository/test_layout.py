"""The folders at the top import as `marple.<folder>`, whole, and under no other name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest


def package_name(folder: Path, folders: dict[str, str]) -> str:
    by_folder = {place: name for name, place in folders.items()}
    return ".".join([by_folder[folder.parts[0]], *folder.parts[1:]])


def test_every_folder_of_code_is_a_listed_package(
    root: Path, files: list[Path], folders: dict[str, str], configuration: dict[str, Any]
) -> None:
    code = {path.parent for path in files if path.suffix == ".py" and path.parts[0] in folders.values()}
    for folder in code:
        assert (root / folder / "__init__.py").is_file(), f"{folder} has code but no __init__.py"
    listed = configuration["tool"]["setuptools"]["packages"]

    # setuptools leaves an unlisted package out of the wheel without a word, and the editable install hides it.
    assert sorted(package_name(folder, folders) for folder in code) == sorted(listed)


def bare_imports(source: str, names: set[str]) -> list[str]:
    """Imports in `source` of a folder under its bare name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            modules = [
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            ]
        else:
            continue
        found += [f"line {node.lineno}: {module}" for module in modules if module.split(".")[0] in names]
    return found


def test_no_module_is_imported_under_a_bare_name(root: Path, files: list[Path], folders: dict[str, str]) -> None:
    # `tools.x` and `marple.tools.x` would be two modules with two sets of classes.
    names = set(folders.values()) - {"marple"}
    found = {
        str(path): bare
        for path in files
        if path.suffix == ".py" and (bare := bare_imports((root / path).read_text(), names))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    ["import tools", "import tools.x as y", "from agent.models import z", "importlib.import_module('tasks.kinds')"],
)
def test_the_search_for_bare_imports_finds_them(source: str) -> None:
    assert bare_imports(source, {"tools", "agent", "tasks"})
    assert not bare_imports("import marple.tools; from marple.agent import x; from . import tasks", {"tools", "tasks"})
