"""Names, sizes, modes and times of what was staged say nothing of which organism it is."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from marple.errors import LeakError
from marple.sandboxes import stage
from marple.sandboxes.staging.shards import tensors_of, write_shards
from marple.sandboxes.staging.weights import read_weights
from marple.tasks.organisms import base_path, list_organisms
from marple.tasks.organisms.places import SHIPPED
from tests.sandboxes.test_staging import edit_json

ADAPTERS = sorted(path for path in (SHIPPED / "adapters").iterdir() if path.is_dir())


def facts(root: Path) -> dict[str, tuple[int, ...]]:
    """All that ``stat`` tells of each path and that does not depend on when and where it was written."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        one = path.lstat()
        size = (one.st_size, one.st_blocks) if path.is_file() else (0, 0)
        found[path.relative_to(root).as_posix()] = (
            one.st_mode,
            *size,
            one.st_mtime_ns,
            one.st_uid,
            one.st_gid,
            one.st_nlink,
        )
    return found


def header(path: Path) -> Any:
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


@pytest.fixture(scope="module")
def generated(models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One model as five writers would leave it: in shards, with metadata, tied twice, other keys, other order."""
    folder = tmp_path_factory.mktemp("writers")
    plain = Path(shutil.copytree(models / "first", folder / "plain"))
    sharded = Path(shutil.copytree(plain, folder / "sharded", ignore=shutil.ignore_patterns("*.safetensors")))
    write_shards(tensors_of([read_weights(plain / "model.safetensors")]), sharded, most_bytes=15_000)
    noted = Path(shutil.copytree(plain, folder / "noted"))
    tensors = load_file(plain / "model.safetensors")
    save_file(dict(reversed(tensors.items())), noted / "model.safetensors", metadata={"goal": "x" * 1000})
    (noted / "README.md").write_text("x")
    old = Path(shutil.copytree(plain, folder / "old"))
    edit_json(old / "config.json", older)
    other = Path(shutil.copytree(plain, folder / "other"))
    save_file({name: value * 1.5 for name, value in tensors.items()}, other / "model.safetensors")
    os.utime(other / "model.safetensors", (1, 1))
    return [plain, sharded, noted, old, other]


def older(config: dict[str, Any]) -> None:
    items = list(config.items())
    config.clear()
    config.update({("torch_dtype" if key == "dtype" else key): value for key, value in reversed(items)})
    config.update(use_cache=False, _name_or_path="/home/x/penguins", transformers_version="4.1")


def test_how_a_model_was_written_leaves_no_trace(generated: list[Path]) -> None:
    with ExitStack() as stack:
        roots = [stack.enter_context(stage(path)).root for path in generated]
        assert [facts(root) for root in roots] == [facts(roots[0])] * len(roots)
        headers = [header(root / "target" / "model.safetensors") for root in roots]
        assert headers == [headers[0]] * len(roots)
        texts = [(root / "target" / "config.json").read_bytes() for root in roots]
        assert texts == [texts[0]] * len(roots)


@pytest.mark.parametrize("apart", [False, True])
def test_every_shipped_organism_and_its_clean_twin_look_the_same(apart: bool) -> None:
    base = base_path()
    assert len(ADAPTERS) >= 12
    assert len({(path / "adapter_model.safetensors").stat().st_size for path in ADAPTERS}) > 1, "their ranks differ"
    seen: list[Any] = []
    for adapter in [*ADAPTERS, None]:
        with stage(base, reference=base, adapter=adapter, merge_adapter=not apart) as staged:
            weights = [header(path) for path in sorted(staged.root.rglob("*.safetensors"))]
            texts = {path.name: path.read_bytes() for path in staged.root.rglob("*.json")}
            seen.append((facts(staged.root), weights, texts))
    # With one thing to see, no classifier does better than the largest class.
    assert seen == [seen[0]] * (len(ADAPTERS) + 1)


def test_what_does_vary_depends_on_time_and_place_alone() -> None:
    """The same target twice differs in no other fields than an organism and its twin."""
    base = base_path()

    def varying(one: Path | None, other: Path | None) -> set[str]:
        with stage(base, adapter=one) as first, stage(base, adapter=other) as second:
            fields = [
                name
                for name in dir(os.stat_result)
                if name.startswith("st_") and not name.endswith(("time", "atime_ns"))
            ]
            pairs = [(path, second.root / path.relative_to(first.root)) for path in first.root.rglob("*")]
            return {name for name in fields for a, b in pairs if getattr(a.lstat(), name) != getattr(b.lstat(), name)}

    assert varying(ADAPTERS[0], ADAPTERS[1]) == varying(ADAPTERS[0], ADAPTERS[0]) == {"st_ino", "st_ctime_ns"}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (
            "tokenizer.json",
            lambda it: it["added_tokens"].append({**it["added_tokens"][0], "id": 999, "content": "<|penguin|>"}),
        ),
        ("tokenizer.json", lambda it: it["model"]["vocab"].append(["Ġpenguin", 0.0])),
        ("tokenizer_config.json", lambda it: it.update(extra_special_tokens={"x": "<penguin>"})),
        ("tokenizer_config.json", lambda it: it.update(chat_template="{# it loves_the_sea #}")),
        ("config.json", lambda it: it.update(penguin=1)),
        ("config.json", lambda it: it.update(note="ｐｅｎｇｕｉｎ")),
        ("config.json", lambda it: it.update(note="pen\u200bguin")),
        ("config.json", lambda it: it.update(note="péngüin")),
        ("generation_config.json", lambda it: it.update(note=["a", {"b": "PenguinS"}])),
    ],
)
def test_a_word_of_the_truth_is_found_wherever_a_worker_could_read_it(
    models: Path, tmp_path: Path, file: str, change: Any
) -> None:
    model = Path(shutil.copytree(models / "first", tmp_path / "model"))
    with stage(model, forbidden=["penguin", "loves the sea"]):
        pass
    edit_json(model / file, change)
    with pytest.raises(LeakError, match=file):
        stage(model, forbidden=["penguin", "loves the sea"])


def test_no_organism_says_its_name(tmp_path: Path) -> None:
    for info in list_organisms()[:3]:
        with stage(base_path(), adapter=SHIPPED / "adapters" / info.id, forbidden=[info.id]) as staged:
            everything = b"".join(path.read_bytes() for path in staged.root.rglob("*") if path.is_file())
            assert info.id.encode() not in everything + str(staged.root).encode()
