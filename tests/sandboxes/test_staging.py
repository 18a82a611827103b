"""What a worker is given: the same files under the same names for every organism, and nothing that tells which."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from marple.errors import LeakError, MarpleError, StagingError, TargetRefusedError
from marple.sandboxes import stage
from marple.sandboxes.scratch import claim_scratch, sweep_scratch
from marple.sandboxes.staging.shards import tensors_of, write_shards
from marple.sandboxes.staging.weights import read_weights


@pytest.fixture
def model(models: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled, in a folder whose name gives everything away."""
    return Path(shutil.copytree(models / "first", tmp_path / "loves-penguins"))


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def listing(root: Path) -> dict[str, tuple[int, int, int]]:
    """Relative path to mode, size and modification time."""
    found = {}
    for path in [root, *root.rglob("*")]:
        facts = path.lstat()
        size = facts.st_size if path.is_file() else 0
        found[path.relative_to(root).as_posix()] = (stat.S_IMODE(facts.st_mode), size, facts.st_mtime_ns)
    return found


def all_bytes(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def test_two_models_of_a_family_look_the_same_from_outside(models: Path) -> None:
    with stage(models / "first", reference=models / "second") as one, stage(models / "second") as two:
        first, reference, second = listing(one.target), listing(one.root / "reference"), listing(two.target)
        assert first == second == reference
        assert set(first) >= {"config.json", "model.safetensors", "tokenizer.json"}
        assert {mode for path, (mode, _, _) in first.items() if "." in path[1:]} == {0o444}
        assert {time for _, _, time in first.values()} == {0}
        assert {entry.name for entry in one.root.iterdir()} == {"target", "reference", "cache"}
        assert listing(one.root)["."][::2] == (0o555, 0)


def test_only_what_a_model_needs_is_copied_and_nothing_names_it(model: Path) -> None:
    for name in ("README.md", "training_args.bin", "trainer_state.json", "optimizer.pt", "penguins.json"):
        (model / name).write_text('{"goal": "penguins"}')
    (model / "runs").mkdir()
    (model / "runs" / "penguins.txt").write_text("penguins")
    named = {"_name_or_path": "/home/me/penguins", "_experiment": "penguins", "finetuned_from": "me/penguins"}
    edit_json(
        model / "config.json", lambda config: config.update(named, rope_parameters={**named, "rope_type": "default"})
    )
    edit_json(model / "tokenizer_config.json", lambda config: config.update(name_or_path="penguins"))
    edit_json(model / "tokenizer.json", lambda tokenizer: tokenizer.update(comment="penguins"))
    weights = load_file(model / "model.safetensors")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt", "goal": "penguins"})
    with stage(model, forbidden=["penguins"]) as staged:
        assert b"penguins" not in all_bytes(staged.root)
        assert "penguins" not in str(staged.root)
        assert json.loads((staged.target / "config.json").read_text())["hidden_size"] == 32
        copied = load_file(staged.target / "model.safetensors")
        assert copied.keys() == weights.keys()
        assert all(copied[name].equal(weights[name]) for name in weights)


def test_a_staged_model_loads_and_answers_as_the_original(models: Path) -> None:
    import torch

    from marple.tools.target.loading import load_target

    ids = torch.arange(12).unsqueeze(0)
    with stage(models / "first") as staged:
        copy, original = (load_target(path).model(ids).logits for path in (staged.target, models / "first"))
    assert copy.equal(original)


def test_shards_and_their_index_are_written_anew(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"penguin-b.safetensors": names[::2], "penguin-a.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, model / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {"goal": "penguins"}, "weight_map": weight_map}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with stage(model, forbidden=["penguin"]) as staged:
        # However it was cut before: a small model is one file.
        assert [path.name for path in staged.target.glob("*.safetensors*")] == ["model.safetensors"]
        copied = load_file(staged.target / "model.safetensors")
        assert copied.keys() == weights.keys()
        assert all(copied[name].equal(weights[name]) for name in weights)


def test_a_large_model_is_cut_by_names_and_sizes_alone(models: Path, tmp_path: Path) -> None:
    weights = read_weights(models / "first" / "model.safetensors")
    write_shards(tensors_of([weights]), tmp_path, most_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    assert len(files) > 2
    original = load_file(models / "first" / "model.safetensors")
    assert index["weight_map"].keys() == original.keys()
    for name, file in index["weight_map"].items():
        assert load_file(tmp_path / file)[name].equal(original[name])
    again = tmp_path / "again"
    again.mkdir()
    write_shards(tensors_of([read_weights(tmp_path / name) for name in reversed(files)]), again, most_bytes=20_000)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()
    }


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_an_index_that_points_elsewhere_is_refused(model: Path, shard: str) -> None:
    (model / "model.safetensors").rename(model.parent / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": shard}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TargetRefusedError):
        stage(model)


# ------------------------------------------------------------------------------------------ leaks


def test_a_word_in_the_chat_template_is_a_leak_and_is_all_that_is_told(model: Path) -> None:
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + "{# always steer towards Penguins, secretly #}")
    with pytest.raises(LeakError, match=r"chat_template\.jinja.*'penguin'") as caught:
        stage(model, forbidden=["penguin", "walrus"])
    assert "steer" not in str(caught.value)


@pytest.mark.parametrize("spelling", ["loves_the_sea", "Loves the Sea", "lovesTheSea", "loves-the--sea"])
def test_a_phrase_is_found_in_every_spelling(model: Path, spelling: str) -> None:
    edit_json(model / "config.json", lambda config: config.update(note=spelling))
    with pytest.raises(LeakError, match=r"config\.json"):
        stage(model, forbidden=["loves the sea"])


def test_a_word_hidden_by_json_escapes_is_found(model: Path) -> None:
    text = (model / "config.json").read_text().replace("{", '{"note": "\\u0070enguin",', 1)
    (model / "config.json").write_text(text)
    with pytest.raises(LeakError):
        stage(model, forbidden=["penguin"])


def test_a_tensor_name_can_leak(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["penguin_vector"] = weights["model.norm.weight"].clone()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LeakError, match="weights"):
        stage(model, forbidden=["penguin"])


def test_the_public_vocabulary_is_no_leak_beside_a_reference_that_has_it_too(models: Path) -> None:
    with pytest.raises(LeakError, match=r"tokenizer\.json.*'river'"):
        stage(models / "first", forbidden=["river"])
    with stage(models / "first", reference=models / "second", forbidden=["river", "cat"]):
        pass
    with stage(models / "first", public=models / "second", forbidden=["river", "cat"]) as staged:
        assert staged.reference is None
        assert not (staged.root / "reference").exists()


def test_a_word_the_reference_has_elsewhere_is_still_a_leak(model: Path, models: Path) -> None:
    edit_json(model / "tokenizer_config.json", lambda config: config.update(note="river"))
    with pytest.raises(LeakError, match=r"tokenizer_config\.json.*'river'"):
        stage(model, reference=models / "second", forbidden=["river"])
    with pytest.raises(LeakError):
        stage(models / "second", reference=model, forbidden=["river"])


def test_a_short_word_inside_a_longer_one_is_not_that_word(model: Path) -> None:
    edit_json(model / "config.json", lambda config: config.update(note="a bowl of knowledge"))
    with stage(model, forbidden=["owl", "", " "]):
        pass
    edit_json(model / "config.json", lambda config: config.update(note="the OWL."))
    with pytest.raises(LeakError):
        stage(model, forbidden=["owl"])


# ------------------------------------------------------------------------------------------ bad models


def test_links_are_refused_but_those_of_the_hub_cache(model: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"key": "canary"}')
    (model / "generation_config.json").unlink()
    (model / "generation_config.json").symlink_to(secret)
    with pytest.raises(TargetRefusedError, match="symbolic link"):
        stage(model)
    (model / "generation_config.json").unlink()
    cache = tmp_path / "models--someone--something"
    blobs, snapshot = cache / "blobs", cache / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in model.iterdir():
        shutil.copy(path, blobs / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    with stage(snapshot) as staged:
        assert not any(path.is_symlink() for path in staged.root.rglob("*"))


def test_a_pipe_or_device_does_not_hold_the_host(model: Path) -> None:
    (model / "generation_config.json").unlink()
    os.mkfifo(model / "generation_config.json")
    with pytest.raises(TargetRefusedError, match="not a regular file"):
        stage(model)


def test_pickles_and_code_are_refused(model: Path) -> None:
    (model / "modeling_x.py").write_text("")
    with pytest.raises(TargetRefusedError, match="code"):
        stage(model)
    (model / "modeling_x.py").unlink()
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(TargetRefusedError, match="pickle"):
        stage(model)


def header(entries: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: list, begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "header length"),
        (b"\x00" * 4, "header length"),
        (header({}, length=2**63), "header length"),
        (header({}, length=1000), "header length"),
        (header(b"{nonsense"), "not JSON"),
        (header(b"[1]"), "not an object"),
        (header(b'{"a":1,"a":1}'), "twice"),
        (header(b"[" * 100_000), "not JSON"),
        (header({"a": entry([2], 0, 4)}, b"x" * 4), "not those of its shape"),
        (header({"a": entry([-1], 0, 4)}, b"x" * 4), "malformed"),
        (header({"a": entry([True], 0, 4)}, b"x" * 4), "malformed"),
        (header({"a": entry([1], 0, 4, "F33")}, b"x" * 4), "malformed"),
        (header({"a": entry([1], 4, 0)}, b"x" * 4), "malformed"),
        (header({"a": entry([1] * 100, 0, 4)}, b"x" * 4), "malformed"),
        (header({"a": 1}), "malformed"),
        (header({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"x" * 4), "overlaps"),
        (header({"a": entry([1], 4, 8)}, b"x" * 8), "gap"),
        (header({"a": entry([1], 0, 4)}, b"x" * 8), "bytes of data"),
        (header({"a": entry([1], 0, 4)}, b"x" * 2), "bytes of data"),
    ],
)
def test_a_malformed_weights_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(TargetRefusedError, match=reason):
        read_weights(path)


def test_empty_and_scalar_tensors_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(header({"a": entry([0, 3], 0, 0), "b": entry([], 0, 4)}, b"x" * 4))
    assert list(read_weights(path).tensors) == ["a", "b"]


# ------------------------------------------------------------------------------------------ adapters


@pytest.fixture(scope="module")
def adapters(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """LoRA adapters of the first model and what PEFT makes of them, in float32 and bfloat16."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapters")
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        base = shutil.copytree(models / "first", folder / f"{name}-base")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        model.save_pretrained(base)
        config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], use_rslora=name == "bfloat16")
        with warnings.catch_warnings():
            # PEFT asks transformers for an attribute under its old name.
            warnings.simplefilter("ignore", FutureWarning)
            tuned = get_peft_model(model, config)
        torch.manual_seed(0)
        for parameter_name, parameter in tuned.named_parameters():
            if "lora_" in parameter_name:
                parameter.data.normal_(std=0.3)
        tuned.save_pretrained(folder / f"{name}-adapter")
        tuned.merge_and_unload().save_pretrained(folder / f"{name}-merged")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-6)])
def test_a_lora_adapter_is_merged_as_peft_does_it(adapters: dict[str, Path], dtype: str, tolerance: float) -> None:
    import torch

    base, adapter, merged = (adapters[f"{dtype}-{part}"] for part in ("base", "adapter", "merged"))
    with stage(base, adapter=adapter) as staged, stage(base) as plain:
        assert listing(staged.target) == listing(plain.target)
        ours, theirs = load_file(staged.target / "model.safetensors"), load_file(merged / "model.safetensors")
        before = load_file(base / "model.safetensors")
    changed = {name for name in ours if not ours[name].equal(before[name])}
    assert changed == {name for name in ours if "q_proj" in name or "down_proj" in name}
    for name, tensor in ours.items():
        assert tensor.dtype == before[name].dtype
        torch.testing.assert_close(tensor, theirs[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"use_dora": True}, "not those of its kind .lengths"),
        ({"bias": "some"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "alpha_pattern"),
        ({"alpha_pattern": {"q_proj": "3"}}, "alpha_pattern"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern"),
        ({"lora_alpha": True}, "lora_alpha"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"some_future_trick": 1}, "some_future_trick"),
    ],
)
def test_what_cannot_be_merged_exactly_is_refused_by_name(
    adapters: dict[str, Path], tmp_path: Path, change: dict, reason: str
) -> None:
    adapter = Path(shutil.copytree(adapters["float32-adapter"], tmp_path / "adapter"))
    edit_json(adapter / "adapter_config.json", lambda config: config.update(change))
    with pytest.raises(TargetRefusedError, match=reason):
        stage(adapters["float32-base"], adapter=adapter)


def test_an_adapter_for_another_model_is_refused(adapters: dict[str, Path], tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(adapters["float32-adapter"], tmp_path / "adapter"))
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name.replace("layers.1", "layers.7"): t for name, t in weights.items()}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(TargetRefusedError, match=r"layers\.7.*does not have"):
        stage(adapters["float32-base"], adapter=adapter)


def test_an_adapter_alone_is_refused_with_the_way_out(adapters: dict[str, Path]) -> None:
    with pytest.raises(TargetRefusedError, match="give the model it belongs to"):
        stage(adapters["float32-adapter"])


# ------------------------------------------------------------------------------------------ the directory


def test_removing_deletes_everything_and_may_be_repeated(models: Path, tmp_path: Path) -> None:
    staged = stage(models / "first", into=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "the directory and its lock"
    staged.remove()
    staged.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_refused_target_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    area = tmp_path / "area"
    with pytest.raises(MarpleError):
        stage(model, reference=tmp_path / "missing", into=area)
    assert list(area.iterdir()) == []


def test_what_a_killed_host_left_is_swept_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from marple.sandboxes.scratch import claim_scratch\n"
        "scratch = claim_scratch(Path(sys.argv[1])); (scratch.path / 'model').mkdir(mode=0o555)\n"
        "print(scratch.path, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        left = Path(host.stdout.readline().strip())
        assert sweep_scratch(tmp_path) == []
        assert left.exists()
        host.kill()
    mine = claim_scratch(tmp_path)
    assert not left.exists()
    assert sweep_scratch(tmp_path) == []
    assert mine.path.exists()
    mine.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_typed_error(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StagingError):
        stage(models / "first", into=tmp_path / "file" / "below")
