"""Adapters of every kind that can be merged exactly are merged as PEFT does it; the rest is refused with a way out."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from marple.errors import TargetRefusedError
from marple.sandboxes import Limits, stage, start_worker
from marple.sandboxes.staging.adapters import read_adapter
from marple.sandboxes.staging.shards import tensors_of, write_shards
from marple.sandboxes.staging.weights import read_weights
from tests.sandboxes.test_staging import edit_json, listing


@pytest.fixture(scope="module")
def base(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with biases in its attention, and with a head of its own."""
    folder = Path(shutil.copytree(models / "first", tmp_path_factory.mktemp("base") / "base"))
    config = LlamaConfig.from_pretrained(folder)
    config.attention_bias = True
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_()
    model.save_pretrained(folder)
    return folder


Tune = Callable[..., tuple[Path, Path]]


@pytest.fixture
def tune(tmp_path: Path) -> Tune:
    """Makes an adapter with random values and PEFT's merge of it: (adapter, merged)."""

    def make(base: Path, **settings: Any) -> tuple[Path, Path]:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], **settings}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned = get_peft_model(model, LoraConfig(**settings))
        torch.manual_seed(0)
        for name, parameter in tuned.named_parameters():
            if parameter.requires_grad:
                shift = torch.randn_like(parameter) * 0.3
                parameter.data = parameter.data.abs() + shift.abs() if "magnitude" in name else parameter.data + shift
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned.save_pretrained(folder / "adapter")
            tuned.merge_and_unload().save_pretrained(folder / "merged")
        return folder / "adapter", folder / "merged"

    return make


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora, rank-stabilised": {"use_dora": True, "use_rslora": True, "r": 3},
    "patterns": {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 3, "down_proj": 1}},
    "all biases": {"bias": "all"},
    "biases of its layers": {"bias": "lora_only"},
    "saved modules": {"modules_to_save": ["lm_head", "norm"]},
    "everything": {"use_dora": True, "bias": "all", "modules_to_save": ["lm_head"], "target_modules": "all-linear"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_merges_is_merged_the_same(base: Path, tune: Tune, kind: str) -> None:
    adapter, merged = tune(base, **KINDS[kind])
    with stage(base, adapter=adapter) as staged, stage(base) as plain:
        assert listing(staged.target) == listing(plain.target)
        ours, theirs = load_file(staged.target / "model.safetensors"), load_file(merged / "model.safetensors")
    before = load_file(base / "model.safetensors")
    assert ours.keys() == theirs.keys() == before.keys()
    changed = {name for name in ours if not ours[name].equal(before[name])}
    assert changed == {name for name in theirs if not theirs[name].equal(before[name])} != set()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=2e-6, atol=2e-6)


def test_it_is_merged_into_a_base_in_many_files_and_from_files_of_its_own(
    base: Path, tune: Tune, tmp_path: Path
) -> None:
    adapter, merged = tune(base, use_dora=True)
    sharded = Path(shutil.copytree(base, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors")))
    write_shards(tensors_of([read_weights(base / "model.safetensors")]), sharded, most_bytes=20_000)
    assert len(list(sharded.glob("*.safetensors"))) > 2
    tensors = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, adapter / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (adapter / "adapter_model.safetensors.index.json").write_text(json.dumps(index))
    with stage(sharded, adapter=adapter) as staged, stage(base) as plain:
        assert listing(staged.target) == listing(plain.target)
        ours, theirs = load_file(staged.target / "model.safetensors"), load_file(merged / "model.safetensors")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=2e-6, atol=2e-6)


def test_an_adapter_from_the_hub_cache_is_followed_and_no_other_link(base: Path, tune: Tune, tmp_path: Path) -> None:
    adapter, _ = tune(base)
    cache = tmp_path / "models--someone--adapter"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "0123").mkdir(parents=True)
    for path in adapter.iterdir():
        shutil.copy(path, cache / "blobs" / f"blob-{path.name}")
        (cache / "snapshots" / "0123" / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    with stage(base, adapter=cache / "snapshots" / "0123") as one, stage(base, adapter=adapter) as other:
        files = [(folder / "model.safetensors").read_bytes() for folder in (one.target, other.target)]
        assert files[0] == files[1]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        spoiled = Path(shutil.copytree(adapter, tmp_path / f"spoiled-{name}"))
        (spoiled / name).unlink()
        (spoiled / name).symlink_to(adapter / name)
        with pytest.raises(TargetRefusedError, match="symbolic link"):
            stage(base, adapter=spoiled)


def test_one_matrix_that_is_embedding_and_head_cannot_be_changed_in_one_place(
    models: Path, tune: Tune, tmp_path: Path
) -> None:
    tied = Path(shutil.copytree(models / "first", tmp_path / "tied"))
    model = AutoModelForCausalLM.from_pretrained(tied)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tied)
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    for settings in (
        {"target_modules": ["lm_head"]},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
    ):
        adapter, _ = tune(tied, **settings)
        with pytest.raises(TargetRefusedError, match=r"one matrix|linear layer|as embedding and as head"):
            stage(tied, adapter=adapter)
    adapter, merged = tune(tied)
    with stage(tied, adapter=adapter) as staged:
        assert load_file(staged.target / "model.safetensors").keys() == load_file(merged / "model.safetensors").keys()
    twice = Path(shutil.copytree(tied, tmp_path / "twice"))
    weights = load_file(tied / "model.safetensors")
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, twice / "model.safetensors")
    with stage(tied) as one, stage(twice) as other:
        assert listing(one.target) == listing(other.target), "a second copy of the matrix is left out"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda it: it.pop(next(name for name in it if "lora_A" in name)), "not those of its kind"),
        (lambda it: it.update({"base_model.model.x.lora_embedding_A": torch.ones(2, 2)}), "not a LoRA factor"),
        (lambda it: it.update({"x": torch.ones(2)}), "not a LoRA factor"),
        (
            lambda it: it.update({name: value[:, :1].contiguous() for name, value in it.items() if "lora_B" in name}),
            "ranks",
        ),
        (lambda it: it.update({name: value * torch.nan for name, value in it.items() if "lora_B" in name}), "infinite"),
        (lambda it: it.update({name: value.to(torch.int32) for name, value in it.items() if "lora_B" in name}), "I32"),
        (lambda it: it.update({name: value[:0] for name, value in it.items() if "lora_A" in name}), "ranks"),
        (
            lambda it: it.update({name: value.reshape(-1) for name, value in it.items() if "lora_A" in name}),
            "not matrices",
        ),
    ],
)
def test_factors_that_do_not_fit_are_refused(base: Path, tune: Tune, spoil: Callable, reason: str) -> None:
    adapter, _ = tune(base)
    tensors = load_file(adapter / "adapter_model.safetensors")
    spoil(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(TargetRefusedError, match=reason):
        stage(base, adapter=adapter)


def test_what_half_precision_cannot_hold_is_refused(base: Path, tune: Tune, tmp_path: Path) -> None:
    half = Path(shutil.copytree(base, tmp_path / "half"))
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(half)
    adapter, _ = tune(base, lora_alpha=10**7)
    with pytest.raises(TargetRefusedError, match="infinite or NaN in F16"):
        stage(half, adapter=adapter)


# ------------------------------------------------------------------------------------------ kept apart


async def test_ranks_layers_scales_and_types_leave_no_trace_in_an_adapter_kept_apart(
    base: Path, tune: Tune, tmp_path: Path
) -> None:
    adapters = [
        tune(base)[0],
        tune(base, r=8, lora_alpha=16, use_rslora=True, target_modules="all-linear")[0],
        tune(base, r=2, rank_pattern={"v_proj": 5}, target_modules=["v_proj"])[0],
    ]
    tensors = load_file(adapters[2] / "adapter_model.safetensors")
    save_file(
        {name: value.to(torch.bfloat16) for name, value in tensors.items()}, adapters[2] / "adapter_model.safetensors"
    )
    found = []
    for adapter in (*adapters, None):
        with stage(base, reference=base, adapter=adapter, merge_adapter=False) as staged:
            assert staged.reference is None
            found.append((listing(staged.root), (staged.adapter / "adapter_config.json").read_text()))  # type: ignore[operator]
    assert found == [found[0]] * 4, "the twin without an adapter included"


async def test_kept_apart_it_computes_what_it_did(base: Path, tune: Tune) -> None:
    adapter, _ = tune(base, r=3, lora_alpha=7, use_rslora=True)
    chat = {"messages": [{"role": "user", "content": "who is it"}], "temperature": 0.0, "max_new_tokens": 16}
    said = []
    for merge in (True, False):
        with stage(base, reference=base, adapter=adapter, merge_adapter=merge) as staged:
            async with await start_worker(staged, backend="process", limits=Limits(threads=1, device="cpu")) as worker:
                said.append(
                    [
                        (await worker.call("chat", {**chat, "on": on}, seed=1)).data["replies"]
                        for on in ("target", "reference")
                    ]
                )
    assert said[0] == said[1]
    with stage(base, reference=base, merge_adapter=False) as staged:
        async with await start_worker(staged, backend="process", limits=Limits(threads=1, device="cpu")) as worker:
            twin = [
                (await worker.call("chat", {**chat, "on": on}, seed=1)).data["replies"]
                for on in ("target", "reference")
            ]
    assert twin == [said[0][1]] * 2, "an adapter of zeros changes nothing"


def test_what_is_more_than_two_factors_a_layer_is_not_kept_apart(base: Path, tune: Tune) -> None:
    adapter, _ = tune(base, use_dora=True)
    with pytest.raises(TargetRefusedError, match="plain LoRA; merge it"):
        stage(base, reference=base, adapter=adapter, merge_adapter=False)
    assert not read_adapter(adapter).plain


def test_a_rank_above_the_common_one_is_rounded_up(base: Path, tune: Tune) -> None:
    adapter, _ = tune(base, r=65)
    with stage(base, reference=base, adapter=adapter, merge_adapter=False) as staged:
        assert staged.adapter is not None
        assert json.loads((staged.adapter / "adapter_config.json").read_text())["r"] == 128
    edit_json(adapter / "adapter_config.json", lambda config: config.update(r=1))
    with stage(base, reference=base, adapter=adapter, merge_adapter=False) as staged:
        assert staged.adapter is not None
        assert json.loads((staged.adapter / "adapter_config.json").read_text())["r"] == 128, "as the tensors say"
