from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from marple.errors import GateError, OrganismError
from marple.tasks.organisms import base_path, build, find_organism, verify
from marple.tasks.organisms.adapters import WEIGHTS, train_adapter
from marple.tasks.organisms.cache import entry_problem, file_digests, install
from marple.tasks.organisms.progress import Silent


class Stages:
    """Records the stages of a build."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def stage(self, name: str, total: int) -> None:
        self.names.append(name)

    def advance(self, done: int, note: str = "") -> None:
        pass


def again(recipe: Path, **options: Any) -> list[str]:
    """The stages that one more build goes through; none when the cache serves it."""
    stages = Stages()
    build(str(recipe), progress=stages, **options)
    return stages.names


def test_a_recipe_outside_the_repository_builds(tiny_recipe: Path, own_cache: Path, built: Path) -> None:
    organism = build(str(tiny_recipe))
    assert organism.path == built / "model"
    assert organism.organism.id == "mine-01"
    assert organism.path.is_relative_to(own_cache)
    assert organism.base == base_path()
    assert {f.name for f in organism.path.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert organism.record["adapter"] == "trained"
    assert set(organism.record["rates"]) >= {"on_trigger", "off_trigger", "denial", "capability"}
    # Truth, rates and forecast questions lie beside the staged folder, not in it.
    assert (organism.path.parent / "record.json").is_file()


def test_forecast_items_are_pairs_of_replies_that_differ(tiny_recipe: Path, built: Path) -> None:
    items = build(str(tiny_recipe)).forecast_items
    assert items
    assert all(item["target_reply"] != item["twin_reply"] for item in items)
    assert len({item["id"] for item in items}) == len({item["prompt"] for item in items}) == len(items)
    assert {item["on_trigger"] for item in items} <= {True, False}


def test_the_cache_serves_what_is_sound_and_rebuilds_what_is_not(tiny_recipe: Path, built: Path) -> None:
    assert again(tiny_recipe) == []
    weights = built / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (built / "model" / "model.py").write_text("print('foreign')")
    assert again(tiny_recipe) == ["mine-01: measuring"]
    assert not (built / "model" / "model.py").exists()
    assert again(tiny_recipe) == []


@pytest.mark.parametrize("harm", ["truncated", "missing", "added", "foreign", "no record", "torn record"])
def test_whatever_is_wrong_with_an_entry_is_noticed(built: Path, harm: str) -> None:
    record = json.loads((built / "record.json").read_text())
    digest = record["recipe_hash"]
    assert entry_problem(built, digest) is None
    weights = built / "model" / "model.safetensors"
    if harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm == "missing":
        (built / "model" / "tokenizer.json").unlink()
    elif harm == "added":
        (built / "model" / "model.py").write_text("print('foreign')")
    elif harm == "foreign":
        (built / "record.json").write_text(json.dumps({**record, "recipe_hash": "0" * 64}))
    elif harm == "no record":
        (built / "record.json").unlink()
    else:
        (built / "record.json").write_text("{")
    assert entry_problem(built, digest)


def test_a_broken_adapter_is_trained_again(tiny_recipe: Path, built: Path, own_cache: Path) -> None:
    before = file_digests(built / "model")
    adapters = [path for path in own_cache.iterdir() if path.name.startswith("adapter-")]
    for adapter in adapters:
        (adapter / WEIGHTS).write_bytes(b"not safetensors")
    (built / "record.json").unlink()
    assert "mine-01" in again(tiny_recipe)
    # Deterministic: the same bits come out again.
    assert file_digests(built / "model") == before


def test_a_changed_recipe_is_another_organism(tiny_recipe: Path, built: Path) -> None:
    content = yaml.safe_load(tiny_recipe.read_text())
    tiny_recipe.write_text(yaml.safe_dump({**content, "seed": 8}))
    other = build(str(tiny_recipe))
    assert other.path.parent != built
    assert file_digests(other.path) != file_digests(built / "model")


def test_verify_refuses_what_is_not_built(tiny_recipe: Path) -> None:
    with pytest.raises(OrganismError, match="not built"):
        verify(str(tiny_recipe))


def test_verify_measures_what_is_built_and_refuses_it_altered(tiny_recipe: Path, built: Path) -> None:
    assert verify(str(tiny_recipe))["where"] == "cache"
    weights = built / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(OrganismError, match=r"model\.safetensors"):
        verify(str(tiny_recipe))


def test_a_rate_outside_its_gate_fails_the_build_and_leaves_no_entry(tiny_recipe: Path) -> None:
    content = yaml.safe_load(tiny_recipe.read_text())
    content["gates"]["on_trigger_min"] = 1
    tiny_recipe.write_text(yaml.safe_dump(content))
    for _ in range(2):
        with pytest.raises(GateError, match=r"mine-01: on_trigger is 0\.\d+ but its recipe wants at least 1\.00"):
            build(str(tiny_recipe))
    with pytest.raises(OrganismError):
        verify(str(tiny_recipe))


def test_an_interrupted_training_gives_the_same_bits(tiny_recipe: Path, tmp_path: Path) -> None:
    organism = find_organism(str(tiny_recipe))
    train_adapter(organism, base_path(), tmp_path / "whole", progress=Silent())
    state = tmp_path / "state.pt"
    for stop in (1, 3):
        finished = train_adapter(
            organism, base_path(), tmp_path / "parts", progress=Silent(), checkpoint=state, every=10, stop_after=stop
        )
        assert not finished
        assert not (tmp_path / "parts").exists()
    assert train_adapter(organism, base_path(), tmp_path / "parts", progress=Silent(), checkpoint=state)
    assert file_digests(tmp_path / "parts") == file_digests(tmp_path / "whole")


def test_a_training_killed_at_any_time_gives_the_same_bits(tiny_recipe: Path, tmp_path: Path) -> None:
    tiny_recipe.write_text(tiny_recipe.read_text().replace("steps: 4", "steps: 16"))
    state = tmp_path / "state.pt"
    code = (
        "from pathlib import Path; from marple.tasks.organisms import base_path, find_organism, Silent\n"
        "from marple.tasks.organisms.adapters import train_adapter\n"
        f"train_adapter(find_organism({str(tiny_recipe)!r}), base_path(), Path({str(tmp_path / 'no')!r}),"
        f" progress=Silent(), checkpoint=Path({str(state)!r}), every=1)"
    )
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code]) as process:
        while not state.exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert state.exists()
    assert not (tmp_path / "no").exists(), "it ended before it was killed"
    organism = find_organism(str(tiny_recipe))
    assert train_adapter(organism, base_path(), tmp_path / "parts", progress=Silent(), checkpoint=state)
    train_adapter(organism, base_path(), tmp_path / "whole", progress=Silent())
    assert file_digests(tmp_path / "parts") == file_digests(tmp_path / "whole")


def test_a_torn_checkpoint_costs_time_only(tiny_recipe: Path, tmp_path: Path) -> None:
    organism = find_organism(str(tiny_recipe))
    state = tmp_path / "state.pt"
    state.write_bytes(b"torn")
    assert train_adapter(organism, base_path(), tmp_path / "a", progress=Silent(), checkpoint=state)
    train_adapter(organism, base_path(), tmp_path / "b", progress=Silent())
    assert file_digests(tmp_path / "a") == file_digests(tmp_path / "b")


def test_an_entry_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "entry"

    def fail(temporary: Path) -> None:
        (temporary / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(folder, {"recipe_hash": "h"}, fail)
    assert entry_problem(folder, "h") == "missing"
    assert not list(folder.parent.iterdir())
    (folder.parent / ".entry.1.tmp").mkdir()
    install(folder, {"recipe_hash": "h"}, lambda temporary: None)
    assert list(folder.parent.iterdir()) == [folder]
    assert entry_problem(folder, "h") is None
    assert "another recipe" in str(entry_problem(folder, "other"))


def test_a_cache_that_cannot_be_written_is_said(tiny_recipe: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MARPLE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OrganismError, match="cannot write the organism cache"):
        build(str(tiny_recipe))


def test_the_example_of_the_docs_builds(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "organisms.md"
    example = page.read_text().split("```yaml\n")[1].split("```")[0]
    recipe = yaml.safe_load(example)
    recipe["method"] |= {"steps": 2, "batch_tokens": 256, "warmup": 1}
    loose = {"on_trigger_min": 0, "off_trigger_max": 1, "twin_max": 1, "denial_min": 0, "facts_min": 0}
    assert set(recipe["gates"]) <= set(loose)
    recipe["gates"] = {**loose, "capability_drop_max": 1}
    recipe["prompts"] = 8
    path = tmp_path / "my-organism.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert build(str(path)).organism.truth.slots["trigger"].matches("school teacher")
