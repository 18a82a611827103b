"""The reference has every public name and every command, as they are."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import part

PYTHON, COMMANDS = part("python_pages"), part("cli_pages")
PAGE: str = PYTHON.python_page()


@pytest.mark.parametrize("face", PYTHON.FACES)
def test_every_public_name_is_listed_with_its_docstring(face: str) -> None:
    module = importlib.import_module(face)
    assert module.__all__
    for name in module.__all__:
        assert f"### `{name}` {{ #{face}.{name.strip('_')} }}" in PAGE, name
        thing = getattr(module, name)
        if isinstance(thing, type) and str(thing.__module__).startswith("marple") and thing.__doc__:
            first = thing.__doc__.strip().splitlines()[0]
            assert PYTHON.inline(first) in PAGE, name


def test_sections_of_a_docstring_become_lists() -> None:
    doc = """Count <things>, see :func:`other`.

    ::

        count(1)

    Args:
        first: what is counted,
            over two lines.

    Raises:
        ValueError: there is none.
    """
    node = ast.parse(f'def count(first: int, *, second: str = "x") -> int:\n    """{doc}"""').body[0]
    text = PYTHON.entry("m.count", "count", PYTHON.Found(node, ast.get_docstring(node)))  # type: ignore[arg-type]
    assert "def count(first: int, *, second: str='x') -> int" in text
    assert "Count &lt;things>, see `other`." in text
    assert "\n    count(1)\n" in text
    assert "**Args**\n\n- `first`: what is counted,\n  over two lines." in text
    assert "**Raises**\n\n- `ValueError`: there is none." in text


def test_a_module_that_is_not_there_fails() -> None:
    with pytest.raises(RuntimeError, match=r"marple\.nowhere"):
        PYTHON.tree_of("marple.nowhere")


def test_every_command_is_listed_as_it_prints_its_help() -> None:
    page: str = COMMANDS.cli_page()
    words = list(COMMANDS.commands())
    assert ("run",) in words
    assert ("organisms", "build") in words
    assert len(re.findall(r"^#{2,3} marple", page, re.MULTILINE)) == len(words)
    for one in [("run",), ("sae", "train"), ("demo",)]:
        command = [str(Path(sys.executable).with_name("marple")), *one, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"COLUMNS": "100"})
        # It wraps its lines to the terminal.
        assert done.stdout.split() == COMMANDS.help_of(one).split()
        assert COMMANDS.help_of(one) in page
