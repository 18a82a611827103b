import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from marple.errors import TargetRefusedError
from marple.tools.target.checkpoint import check_target_dir, find_target
from marple.tools.target.loading import load_target
from marple.tools.target.tiny import make_tiny_checkpoint, tiny_target

# PEFT still reads a name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CHAT = [{"role": "user", "content": "tell me about the lamp"}]


def add_adapter(base: Path, path: Path) -> Path:
    """Save a random LoRA adapter of the model in ``base``."""
    model = load_target(base).model.requires_grad_(True)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(path)
    return path


def test_a_saved_model_is_the_model(checkpoint: Path) -> None:
    assert load_target(checkpoint).facts == tiny_target().facts


def test_facts_are_json_and_name_size_and_precision(checkpoint: Path) -> None:
    facts = json.loads(json.dumps(load_target(checkpoint, dtype="bfloat16").facts))
    assert facts["dtype"] == "bfloat16"
    assert (facts["layers"], facts["d_model"], facts["context"], facts["device"]) == (2, 32, 256, "cpu")
    assert load_target(checkpoint).facts["dtype"] == "float32"


def test_a_reference_may_lack_a_chat_template_and_gets_the_targets(checkpoint: Path, tmp_path: Path) -> None:
    other = make_tiny_checkpoint(tmp_path / "other", seed=1)
    (other / "chat_template.jinja").unlink()
    with pytest.raises(TargetRefusedError, match="no chat template"):
        load_target(other)
    target = load_target(checkpoint, reference=other)
    assert target.reference is not None
    assert target.reference.render(CHAT) == target.render(CHAT)
    assert target.reference.facts["weights_sha256"] != target.facts["weights_sha256"]


def test_an_adapter_is_merged_into_its_base(checkpoint: Path, tmp_path: Path) -> None:
    adapter = add_adapter(checkpoint, tmp_path / "adapter")
    assert check_target_dir(adapter).base == str(checkpoint)
    target = load_target(adapter, reference=checkpoint)
    assert target.reference is not None
    pair = (target.render(CHAT), target.encode("yes no")[1:])
    assert abs(sum(target.score([pair])[0]) - sum(target.reference.score([pair])[0])) > 0.01
    assert "lora" not in " ".join(name for name, _ in target.model.named_parameters())


def test_the_base_of_an_adapter_can_be_given(checkpoint: Path, tmp_path: Path) -> None:
    adapter = add_adapter(checkpoint, tmp_path / "adapter")
    expected = load_target(adapter).facts
    moved = checkpoint.rename(tmp_path / "elsewhere")
    with pytest.raises(TargetRefusedError, match="does not exist"):
        load_target(adapter)
    assert load_target(adapter, base=moved).facts == expected


def test_a_sharded_model_is_accepted_and_a_missing_shard_is_not(checkpoint: Path, tmp_path: Path) -> None:
    target = load_target(checkpoint)
    target.model.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(checkpoint / name, tmp_path / "sharded" / name)
    weights = check_target_dir(tmp_path / "sharded").weights
    assert len(weights) > 1
    assert load_target(tmp_path / "sharded").facts == target.facts
    (tmp_path / "sharded" / weights[0]).unlink()
    with pytest.raises(TargetRefusedError, match=f"lacks shards.*{weights[0]}"):
        check_target_dir(tmp_path / "sharded")


def test_pickles_beside_safetensors_are_named_as_ignored(checkpoint: Path) -> None:
    (checkpoint / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert check_target_dir(checkpoint).ignored == ("pytorch_model.bin",)
    assert load_target(checkpoint).facts == tiny_target().facts


def test_missing_and_broken_directories_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "nowhere", "does not exist"),
        (checkpoint / "config.json", "is a file, not a directory"),
        (tmp_path, r"has no config.json \(found: model\)"),
    ):
        with pytest.raises(TargetRefusedError, match=reason):
            check_target_dir(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "config.json that cannot be read"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", "{}", "no model_type"),
        ("config.json", '{"model_type": "llama", "auto_map": {"AutoModel": "x.Y"}}', "custom code .auto_map in config"),
        ("tokenizer_config.json", '{"auto_map": {}}', "auto_map in tokenizer_config.json"),
        ("modeling_mine.py", "", "its own code .found: modeling_mine.py"),
        ("tokenizer.json", None, "has no tokenizer"),
        ("chat_template.jinja", None, "no chat template"),
        ("model.safetensors", None, "no model.safetensors and no model.safetensors.index.json .found: chat_template"),
        ("model.safetensors", "broken", "cannot be loaded"),
        ("tokenizer.json", "{}", "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_safely_is_refused_with_the_reason(
    checkpoint: Path, name: str, content: str | None, reason: str
) -> None:
    if content is None:
        (checkpoint / name).unlink()
    else:
        (checkpoint / name).write_text(content)
    with pytest.raises(TargetRefusedError, match=reason):
        load_target(checkpoint)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "weights.pkl"])
def test_a_pickle_checkpoint_is_refused_and_never_opened(checkpoint: Path, name: str) -> None:
    (checkpoint / "model.safetensors").unlink()
    proof = checkpoint / "executed"
    (checkpoint / name).write_bytes(f"cos\nsystem\n(S'touch {proof}'\ntR.".encode())
    with pytest.raises(TargetRefusedError, match=f"pickled weights only .*{name}"):
        load_target(checkpoint)
    assert not proof.exists()


def test_an_adapter_with_pickled_weights_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = add_adapter(checkpoint, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(TargetRefusedError, match="pickled weights only"):
        load_target(adapter)


def test_weights_that_are_missing_are_not_made_up(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TargetRefusedError, match=r"lacks 1 of its weights \(model.layers.1.mlp.up_proj.weight\)"):
        load_target(checkpoint)


def test_adapter_weights_that_are_missing_are_not_made_up(checkpoint: Path, tmp_path: Path) -> None:
    adapter = add_adapter(checkpoint, tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TargetRefusedError, match="missing adapter keys"):
        load_target(adapter)


def test_a_name_that_is_neither_path_nor_hub_id_needs_no_network_to_fail() -> None:
    for name in ("no-such-folder", "a/b/c", "./a/b", "/absent/model"):
        with pytest.raises(TargetRefusedError, match="not a hub id either"):
            find_target(name)


def test_a_hub_id_is_found_in_the_local_cache(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    folder = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(checkpoint, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_target("someone/tiny") == folder / "snapshots" / commit


def test_a_hub_id_that_cannot_be_fetched_fails_clearly(tmp_path: Path) -> None:
    program = (
        "from marple.errors import TargetRefusedError\n"
        "from marple.tools.target.checkpoint import find_target\n"
        "try:\n    find_target('nobody/nothing')\nexcept TargetRefusedError as error:\n    print(error)"
    )
    # Nothing listens on port 9, so this is a machine without network.
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert "'nobody/nothing' is no directory here, is not in the local hub cache" in done.stdout
