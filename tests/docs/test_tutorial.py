"""The tutorial's commands are run, and print what it shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(console|text)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def typed(start: str) -> list[str]:
    """The words of the page's command that begins so."""
    (line,) = {line for kind, text in BLOCKS if kind == "console" for line in text.splitlines() if start in line}
    return shlex.split(line.removeprefix("$ "))


def shown(start: str) -> list[str]:
    """The lines of the page's output that begins so, up to what is left out."""
    (text,) = [text for kind, text in BLOCKS if kind == "text" and text.startswith(start)]
    return [line for line in text.splitlines() if "[...]" not in line]


def run(words: list[str], cwd: Path) -> str:
    known = {"marple": [sys.executable, "-m", "marple.cli"], "python": [sys.executable]}
    command = [*known[words[0]], *(str(ROOT / word) if word.startswith("docs/") else word for word in words[1:])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def masked(text: str) -> str:
    """Without figures, which another machine may count otherwise, and without the room between columns."""
    return " ".join(re.sub(r"\d[\d,.]*", "#", text).split())


def check(lines: list[str], printed: str) -> None:
    assert len(lines) >= 4
    there = masked(printed)
    for line in lines:
        assert masked(line) in there, line


def test_a_tool_prints_what_the_page_shows(tmp_path: Path) -> None:
    check(shown("replies that contain"), run(typed("marple tool compare"), tmp_path))


@pytest.mark.slow
def test_the_fine_tune_is_found_as_the_page_shows(tmp_path: Path) -> None:
    assert "my-adapter: loss" in run(typed("docs/fine_tune.py"), tmp_path)
    printed = run(typed("--target my-adapter --seed 1"), tmp_path)
    assert "promotes mirex, when: always" in printed
    check(shown("hidden-goal/own-target"), printed)


def test_the_page_shows_the_end_of_the_demo_as_the_readme_does() -> None:
    readme = masked((ROOT / "README.md").read_text())
    for line in shown("hidden-goal/nano-09"):
        assert masked(line) in readme, line
