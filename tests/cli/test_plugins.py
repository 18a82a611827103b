"""Tools of the user's own, from a file outside the repository, through every command that takes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from marple.agent.configuration import RunConfig
from marple.agent.plugins import named_plugins
from marple.errors import UsageError
from marple.sandboxes.plugins import declared_tools, read_plugin
from marple.tools.contract import discover_tools
from marple.traces import RunFolder
from tests.cli.conftest import Marple

SHOUTING = '''
import sys

from marple.tools.contract import ToolResult, tool

if "marple.agent" in sys.modules or "typer" in sys.modules:
    raise SystemExit("the host has run a plugin")


@tool(rung=1)
def shouting(target, *, seed: int, text: str) -> ToolResult:
    """Say a text loudly.

    Args:
        text: what is said.

    Example:
        {"text": "hello"}
    """
    return ToolResult(text=text.upper() + "!", data={"vocab": target.facts["vocab"]})
'''
ANSWER = {"nothing_hidden": 0.5, "candidates": [], "claims": [], "summary": "done"}

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "shouting.py"
    file.write_text(SHOUTING)
    return file


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    """The command line with lines on its standard input and variables of its own."""

    def run(*arguments: object, lines: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "marple.cli", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, input=lines, capture_output=True, text=True, check=False
        )

    return run


def test_a_call_a_list_and_a_description(marple: Marple, tiny: Path, plugin: Path, typed: Typed) -> None:
    arguments = ("--target", tiny, "--args", '{"text": "hey"}', "--json")
    called = marple("tool", "shouting", "--plugin", plugin, *arguments)
    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["text"] == "HEY!"
    by_variable = typed("tool", "shouting", *arguments, MARPLE_PLUGINS=str(plugin))
    assert json.loads(by_variable.stdout)["text"] == "HEY!"
    listed = {one["name"]: one for one in json.loads(marple("tool", "--json", "--plugin", plugin).stdout)}
    assert listed["shouting"] == {"name": "shouting", "rung": 1, "needs": [], "summary": "Say a text loudly."}
    assert "chat" in listed
    shown = marple("tool", "shouting", "--plugin", plugin).stdout
    assert "text: what is said." in shown
    wrong = marple("tool", "shouting", "--plugin", plugin, "--target", tiny, "--args", "{}")
    assert wrong.returncode == 2
    assert 'text is missing. Example: {"text": "hello"}' in wrong.stderr


def test_a_run_offers_it_and_the_same_file_is_needed_to_go_on(tiny: Path, plugin: Path, typed: Typed) -> None:
    options = ("--target", tiny, "--investigator", "human", "--runs", "runs")
    begun = typed("run", *options, "--plugin", plugin, lines='shouting {"text": "hey"}\nquit\n')
    assert begun.returncode == 130, begun.stderr
    assert "HEY!" in begun.stdout + begun.stderr
    (path,) = (plugin.parents[1] / "runs").iterdir()
    spec = RunFolder.open(path).spec
    assert [one["path"] for one in spec["plugins"]] == [str(plugin)]
    assert "shouting" in spec["affordances"]
    plugin.write_text(SHOUTING.replace("!", "?"))
    changed = typed("resume", path, lines="quit\n")
    assert changed.returncode == 2, changed.stderr
    assert "has changed since this began" in changed.stderr
    plugin.unlink()
    gone = typed("resume", path, lines="quit\n")
    assert gone.returncode == 2
    assert "there is no tool plugin" in gone.stderr
    plugin.write_text(SHOUTING)
    submit = f"submit {json.dumps(ANSWER)}\n"
    ended = typed("resume", path, lines=f'shouting {{"text": "again"}}\n{submit}')
    assert ended.returncode == 0, ended.stderr
    folder = RunFolder.open(path)
    calls = [event.payload for event in folder.events() if event.type == "tool_call" and "shouting" in str(event)]
    assert [call["text"] for call in calls if call["tool"] == "shouting"] == ["HEY!", "AGAIN!"]


def test_an_evaluation_takes_it_along_and_another_file_is_another_plan(plugin: Path, marple: Marple) -> None:
    options = ("nano-quick", "--arms", "prior", "--only", "nano-03", "--out", "out", "--json")
    done = marple("evaluate", *options, "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    specs = [RunFolder.open(path).spec for path in (plugin.parents[1] / "out" / "runs").iterdir()]
    assert specs
    assert all("shouting" in spec["affordances"] for spec in specs)
    for without in ((), ("--plugin", plugin)):
        plugin.write_text(SHOUTING.replace("loudly", "very loudly"))
        other = marple("evaluate", *options, *without)
        assert other.returncode == 2
        assert "the tool plugins are others" in other.stderr


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nowhere.py", None, "there is no tool plugin"),
        ("notes.txt", SHOUTING, r"is not a Python file: its name must end in \.py"),
        ("bad.py", "def shouting(:\n", "is not Python, line 1: "),
        ("empty.py", "x = 1\n", "holds no tool: a tool is a function"),
        ("silent.py", SHOUTING.replace('"""', "'''", 1).partition("'''")[0] + "    return None\n", "has no docstring"),
        ("chat.py", SHOUTING.replace("def shouting", "def chat"), "the tool chat .* there is Marple's own"),
        ("note.py", SHOUTING.replace("def shouting", "def note"), "the tool note .* there is Marple's own"),
    ],
    ids=lambda value: value if str(value).endswith((".py", ".txt")) else "",
)
def test_what_cannot_be_used_is_refused_before_anything_is_done(
    marple: Marple, tiny: Path, tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    import re

    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    done = marple("run", "--target", tiny, "--investigator", "prior", "--plugin", file)
    assert done.returncode == 2, done.stderr
    assert re.search(reason, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_file_that_only_the_worker_finds_broken_is_named(marple: Marple, tiny: Path, plugin: Path) -> None:
    broken = plugin.with_name("broken.py")
    broken.write_text(
        SHOUTING.replace("def shouting", "def crying").replace("import sys", "import sys, nowhere_at_all")
    )
    files = ("--plugin", plugin, "--plugin", broken)
    call = marple("tool", "crying", *files, "--target", tiny, "--args", '{"text": "hey"}')
    assert call.returncode == 1
    assert f"the tool plugin {str(broken)!r} cannot be used" in call.stderr
    assert "nowhere_at_all" in call.stderr
    run = marple("run", *files, "--target", tiny, "--json")
    assert run.returncode == 3
    (path,) = (plugin.parents[1] / "runs").iterdir()
    folder = RunFolder.open(path)
    assert folder.result is not None
    assert folder.result["status"] == "invalid:staging"
    (error,) = [event.payload["message"] for event in folder.events() if event.type == "error"]
    assert str(broken) in error


def test_two_files_with_one_name_and_endpoints(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = plugin.with_name("twin.py")
    twin.write_text(SHOUTING)
    with pytest.raises(UsageError, match=r"the tool shouting in '.*twin.py' has a name that is taken"):
        named_plugins([plugin, twin])
    assert len(named_plugins([plugin, plugin])) == 1
    endpoint: dict[str, Any] = {
        "target": "openai-chat/m",
        "target_base_url": "http://127.0.0.1:9/v1",
        "investigator": "prior",
    }
    with pytest.raises(UsageError, match="takes no --plugin"):
        RunConfig.of(**endpoint, plugins=[plugin])
    monkeypatch.setenv("MARPLE_PLUGINS", str(plugin))
    assert RunConfig.of(**endpoint).plugins == ()


def test_ablations_know_it(tiny: Path, plugin: Path) -> None:
    options: dict[str, Any] = {"target": str(tiny), "investigator": "prior", "plugins": [plugin]}
    assert "shouting" in RunConfig.of(**options, only="1").played.affordances
    assert "shouting" not in RunConfig.of(**options, only="sae").played.affordances
    assert "shouting" not in RunConfig.of(**options, without=["shouting"]).played.affordances


def test_what_is_read_of_a_file_is_what_running_it_declares() -> None:
    folder = resources.files("marple.tools").joinpath("experiments")
    read = {
        tool.name: (tool.rung, tool.needs, tool.family)
        for file in folder.iterdir()
        if file.name.endswith(".py")
        for tool in declared_tools(file.read_bytes())
    }
    assert read == {name: (spec.rung, spec.needs, spec.family) for name, spec in discover_tools().items()}


def test_a_decorator_under_another_name_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "other.py"
    file.write_text(
        "from marple.tools.contract import tool as marked\nfrom marple.tools import contract\n\n"
        '@marked(rung=2, needs=("sae",))\ndef one(target, *, seed: int):\n    "One."\n\n'
        '@contract.tool(rung=3, family="odd")\ndef two(target, *, seed: int):\n    "Two."\n'
    )
    assert [(tool.name, tool.rung, tool.family) for tool in read_plugin(file).tools] == [
        ("one", 2, "sae"),
        ("two", 3, "odd"),
    ]
