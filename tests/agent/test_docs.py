"""What the documents tell people to type exists, and their Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> set[tuple[str, ...]]:
    """The subcommands and options of every ``marple ...`` line in a code block."""
    found = set()
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^\$?\s*marple (.*?)(?:\s{2,}|\s#|$)", block, re.MULTILINE):
            words = line.split()
            subcommand = [w for w in words[:2] if re.fullmatch(r"[a-z]+", w)]
            if words[0] not in ("tasks", "organisms", "sae", "sandbox", "play", "judge"):
                subcommand = subcommand[:1]
            options = [w.strip("[]") for w in words if w.strip("[]").startswith("--")]
            found.add((*subcommand, *options))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    for words in commands(page):
        names = [w for w in words if not w.startswith("--")]
        command = [sys.executable, "-m", "marple.cli", *names, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "200"})
        assert done.returncode == 0, (words, done.stderr)
        for option in words[len(names) :]:
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", done.stdout), (words, option)


@pytest.mark.parametrize("page", ["running.md", "reviewing.md"])
def test_the_python_in_a_page_runs(tmp_path: Path, page: str) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
