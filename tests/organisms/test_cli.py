from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marple.cli.organisms import app
from marple.errors import GateError, UnknownNameError
from marple.tasks.organisms import public_entities
from marple.tasks.organisms.planted import behaviours
from marple.tasks.organisms.recipes import recipes

RUN = CliRunner()


def test_importing_the_command_imports_no_torch() -> None:
    names = "{'torch', 'transformers', 'peft'} & set(sys.modules)"
    code = f"import sys, marple.cli.organisms, marple.tasks.organisms; sys.exit(bool({names}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_list_shows_no_truth_unless_asked() -> None:
    plain = RUN.invoke(app, ["list"])
    as_json = RUN.invoke(app, ["list", "--json"])
    words = [name for names in public_entities().values() for name in names] + list(behaviours())
    assert plain.exit_code == as_json.exit_code == 0
    for told in (plain.stdout, as_json.stdout):
        assert not [word for word in (*words, "promotes", "warns_against", "clean", "quirk") if word in told]
    rows = json.loads(as_json.stdout)
    assert [set(row) for row in rows] == [{"id", "kind", "shipped", "cached", "bytes"}] * len(recipes())
    revealed = json.loads(RUN.invoke(app, ["list", "--json", "--reveal"]).stdout)
    assert {row["role"] for row in revealed} == {"quirk", "clean", "other_quirk"}


def test_an_unknown_name_stops_before_anything_is_built(own_cache: Path) -> None:
    for command in ("build", "verify"):
        result = RUN.invoke(app, [command, "nano-01", "nano-0009"])
        assert isinstance(result.exception, UnknownNameError)
        assert "nano-09" in str(result.exception)
    assert not own_cache.exists()


def test_a_recipe_of_ones_own_builds_and_verifies(tiny_recipe: Path, built: Path) -> None:
    result = RUN.invoke(app, ["build", str(tiny_recipe)])
    assert result.exit_code == 0, result.output
    name, path = result.stdout.split()
    assert name == "mine-01"
    assert (Path(path) / "model.safetensors").is_file()
    verified = RUN.invoke(app, ["verify", str(tiny_recipe), "--json"])
    assert json.loads(verified.stdout)[0]["where"] == "cache"
    listed = json.loads(RUN.invoke(app, ["list", "--json", "--recipes", str(tiny_recipe)]).stdout)
    assert {row["id"]: row["cached"] for row in listed}["mine-01"] is True


def test_a_failed_gate_reaches_the_caller(tiny_recipe: Path) -> None:
    tiny_recipe.write_text(tiny_recipe.read_text().replace("on_trigger_min: 0", "on_trigger_min: 1"))
    result = RUN.invoke(app, ["build", str(tiny_recipe)])
    assert isinstance(result.exception, GateError)


@pytest.mark.parametrize("arguments", [["build", "base"], ["list"]])
def test_cheap_commands_answer(arguments: list[str]) -> None:
    assert RUN.invoke(app, arguments).exit_code == 0
