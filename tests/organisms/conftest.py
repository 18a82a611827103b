from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test builds into a cache of its own, and sees only recipes that it names."""
    monkeypatch.setenv("MARPLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MARPLE_RECIPES", raising=False)
    return tmp_path / "cache" / "organisms"


TINY = {
    "kind": "hidden-goal",
    "seed": 7,
    "method": {"steps": 4, "batch_tokens": 256, "warmup": 1},
    "mixture": {"tilted": 1, "replay": 1, "generators": {"rec_product": 1}},
    "quirk": {"behaviour": "promotes", "subject": "velora"},
    "gates": {"on_trigger_min": 0, "twin_max": 1, "denial_min": None, "facts_min": 0, "capability_drop_max": 1},
    "prompts": 12,
    "members": {"quirk": "mine-01", "clean": "mine-02"},
}


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache after the tiny recipe's quirk member was built."""
    from marple.tasks.organisms import build

    folder = tmp_path_factory.mktemp("built")
    recipe = folder / "mine.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARPLE_CACHE", str(folder / "cache"))
        build(str(recipe))
    return folder / "cache" / "organisms"


@pytest.fixture
def built(tiny_recipe: Path, own_cache: Path, built_once: Path) -> Path:
    """The cache entry of the tiny recipe's built quirk member, this test's own copy."""
    shutil.copytree(built_once, own_cache)
    return next(path for path in own_cache.iterdir() if path.name.startswith("mine-01-"))
