"""Imports only point down, and what must start fast imports little."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

HEAVY = ("anthropic", "langgraph", "numpy", "openai", "peft", "tokenizers", "torch", "transformers")


def loaded_by(code: str) -> list[str]:
    """The modules a fresh process has loaded after running `code`."""
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return modules


def heavy(modules: list[str]) -> list[str]:
    return [name for name in HEAVY if name in modules]


HELP = """
sys.argv = ["marple", "--help"]
from marple.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code
"""


def test_import_marple_loads_nothing_heavy() -> None:
    modules = loaded_by("import marple")
    assert "marple" in modules
    assert heavy(modules) == []
    assert not [name for name in modules if name.split(".")[0] in ("typer", "rich", "pydantic")]


def test_help_loads_nothing_heavy() -> None:
    modules = loaded_by(HELP)
    assert "marple.cli" in modules
    assert heavy(modules) == []


def seconds(command: list[str]) -> float:
    """The shortest of five runs: the one the rest of the machine disturbed least."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        times.append(time.perf_counter() - start)
    return min(times)


def test_help_answers_at_once() -> None:
    script = Path(sys.executable).with_name("marple")
    # Half a second on an idle machine; on a busy or slow one, in proportion to what starting Python takes.
    assert seconds([str(script), "--help"]) < max(0.5, 15 * seconds([sys.executable, "-c", "pass"]))


def test_the_floors_hold(root: Path, folders: dict[str, str], tmp_path: Path) -> None:
    # import-linter follows no links and no import hook, so it looks at a copy in the shape of the wheel.
    ignored = shutil.ignore_patterns("__pycache__")
    for name, folder in sorted(folders.items()):
        shutil.copytree(root / folder, tmp_path / name.replace(".", "/"), ignore=ignored)
    script, config = Path(sys.executable).with_name("lint-imports"), root / "pyproject.toml"
    command = [str(script), "--config", str(config), "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
