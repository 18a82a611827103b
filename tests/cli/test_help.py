"""The command line answers before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Marple


def test_no_heavy_module_is_imported_to_show_the_help() -> None:
    script = (
        "import sys, contextlib\n"
        "sys.argv = ['marple', '--help']\n"
        "from marple.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "heavy = {'torch', 'transformers', 'langgraph', 'openai', 'anthropic', 'numpy', 'matplotlib', 'pydantic'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tool" in done.stdout


@pytest.mark.parametrize("command", ["run", "tool"])
def test_a_command_says_what_may_come_beside_a_target(marple: Marple, command: str) -> None:
    done = marple(command, "--help")
    assert done.returncode == 0
    assert "--sae" in done.stdout
    assert "--corpus" in done.stdout
