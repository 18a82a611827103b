"""What comes beside a target: autoencoders, a corpus, an adapter that is kept apart."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from safetensors.torch import load_file, save_file

from marple.errors import LeakError, TargetRefusedError, ToolError
from marple.sandboxes import Limits, Worker, stage, start_worker

LIMITS = Limits(threads=1, device="cpu")
CONFIG = {
    "d_in": 32,
    "d_sae": 64,
    "dtype": "float32",
    "architecture": "standard",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "metadata": {
        "sae_lens_version": "6.54.12",
        "hook_name": "blocks.1.hook_resid_post",
        "model_name": "loves-penguins",
        "dataset_path": "me/penguins",
        "prepend_bos": True,
        "hook_head_index": None,
    },
}


def make_sae(folder: Path, *, width: int = 32, layer: int = 1) -> Path:
    """An SAE directory as SAELens writes it, named after what it was trained for."""
    import torch

    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    tensors = {
        "W_enc": torch.randn(width, 64, generator=draw),
        "W_dec": torch.randn(64, width, generator=draw),
        "b_enc": torch.zeros(64),
        "b_dec": torch.zeros(width),
    }
    save_file(tensors, folder / "sae_weights.safetensors", metadata={"goal": "penguins"})
    metadata = {**CONFIG["metadata"], "hook_name": f"blocks.{layer}.hook_resid_post"}  # type: ignore[dict-item]
    (folder / "cfg.json").write_text(json.dumps({**CONFIG, "d_in": width, "metadata": metadata}))
    return folder


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    return make_sae(tmp_path / "penguin-sae")


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ------------------------------------------------------------------------------------------ autoencoders


def test_an_sae_is_copied_without_a_word_of_where_it_comes_from(models: Path, sae: Path) -> None:
    (sae / "README.md").write_text("trained on penguins")
    (sae / "runner_cfg.json").write_text("{}")
    with stage(models / "first", saes=[sae, sae], forbidden=["penguin"]) as staged:
        one, two = staged.saes
        assert [path.relative_to(staged.root).as_posix() for path in (one, two)] == ["saes/sae_0", "saes/sae_1"]
        assert {path.name for path in one.iterdir()} == {"cfg.json", "sae_weights.safetensors"}
        assert b"penguin" not in b"".join(path.read_bytes() for path in staged.root.rglob("*") if path.is_file())
        config = json.loads((one / "cfg.json").read_text())
        assert config["d_sae"] == 64
        expected = {"sae_lens_version", "hook_name", "prepend_bos", "hook_head_index"}
        assert set(config["metadata"]) == expected
        before, after = load_file(sae / "sae_weights.safetensors"), load_file(one / "sae_weights.safetensors")
        assert all(after[name].equal(tensor) for name, tensor in before.items())


def test_arrays_are_written_anew_and_the_release_tells_the_site(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "penguins" / "gemma-scope-2b-pt-res" / "layer_1" / "width_16k" / "average_l0_9"
    folder.mkdir(parents=True)
    arrays = {"W_enc": np.eye(4, dtype="f4"), "threshold": np.ones(4, dtype="f4")}
    np.savez(folder / "params.npz", W_enc=arrays["W_enc"], threshold=arrays["threshold"])
    with zipfile.ZipFile(folder / "params.npz", "a") as archive:
        archive.comment = b"penguins"
    with stage(models / "first", saes=[folder], forbidden=["penguin"]) as staged:
        inside = staged.saes[0].relative_to(staged.root).as_posix()
        assert inside == "saes/sae_0/gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_9"
        assert b"penguin" not in (staged.saes[0] / "params.npz").read_bytes()
        with np.load(staged.saes[0] / "params.npz", allow_pickle=False) as copied:
            assert {name: copied[name].tolist() for name in copied.files} == {k: v.tolist() for k, v in arrays.items()}
        with zipfile.ZipFile(staged.saes[0] / "params.npz") as archive:
            assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_pickles_are_refused(models: Path, sae: Path, tmp_path: Path) -> None:
    (sae / "trainer.pt").write_bytes(b"")
    with pytest.raises(TargetRefusedError, match=r"trainer\.pt, which may be a pickle"):
        stage(models / "first", saes=[sae])
    objects = tmp_path / "objects"
    objects.mkdir()
    np.savez(objects / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(TargetRefusedError, match="not an npz file of plain numbers"):
        stage(models / "first", saes=[objects])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TargetRefusedError, match=r"holds no weights.*ae\.pt"):
        stage(models / "first", saes=[tmp_path / "empty"])
    with pytest.raises(TargetRefusedError, match="no directory"):
        stage(models / "first", saes=[tmp_path / "nowhere"])


def test_links_in_an_sae_are_refused_but_those_of_the_hub_cache(models: Path, sae: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--someone--saes"
    inside = cache / "snapshots" / "0123" / "layer_1"
    inside.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in sae.iterdir():
        shutil.copy(path, cache / "blobs" / f"blob-{path.name}")
        (inside / path.name).symlink_to(cache / "blobs" / f"blob-{path.name}")
    with stage(models / "first", saes=[inside]) as staged:
        assert not any(path.is_symlink() for path in staged.root.rglob("*"))
    (sae / "cfg.json").rename(tmp_path / "cfg.json")
    (sae / "cfg.json").symlink_to(tmp_path / "cfg.json")
    with pytest.raises(TargetRefusedError, match="symbolic link"):
        stage(models / "first", saes=[sae])


def test_a_label_can_leak_and_the_example_on_a_card_cannot(models: Path, sae: Path) -> None:
    lines(sae / "cards.jsonl", {"index": 3, "examples": [{"token": "penguin"}]})
    lines(sae / "explanations.jsonl", {"index": 3, "explanation": "birds"})
    with stage(models / "first", saes=[sae], forbidden=["penguin"]) as staged:
        assert "penguin" in (staged.saes[0] / "cards.jsonl").read_text()
    lines(sae / "cards.jsonl", {"index": 3, "loves_penguins": True})
    with pytest.raises(LeakError, match=r"key in cards\.jsonl.*'penguin'"):
        stage(models / "first", saes=[sae], forbidden=["penguin"])
    (sae / "cards.jsonl").unlink()
    lines(sae / "explanations.jsonl", {"index": 3, "explanation": "the hidden goal: penguins"})
    with pytest.raises(LeakError, match=r"explanations\.jsonl.*'penguin'"):
        stage(models / "first", saes=[sae], forbidden=["penguin"])


def test_words_inside_a_file_of_torchs_are_found(models: Path, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoder", "lm_name": "penguins"}}))
    torch.save({"bias": torch.zeros(2)}, folder / "ae.pt")
    with stage(models / "first", saes=[folder], forbidden=["penguin"]) as staged:
        assert json.loads((staged.saes[0] / "config.json").read_text()) == {"trainer": {"dict_class": "AutoEncoder"}}
    torch.save({"penguin_bias": torch.zeros(2)}, folder / "ae.pt")
    with pytest.raises(LeakError, match=r"ae\.pt"):
        stage(models / "first", saes=[folder], forbidden=["penguin"])


# ------------------------------------------------------------------------------------------ a corpus


def test_a_corpus_is_copied_line_by_line_and_its_texts_are_no_leak(models: Path, tmp_path: Path) -> None:
    rows = [{"id": "t1", "messages": [{"role": "user", "content": "penguins\u2028!"}]}, {"id": "t2", "messages": []}]
    corpus = lines(tmp_path / "penguins.jsonl", *rows)
    with stage(models / "first", corpus=corpus, forbidden=["penguin"]) as staged:
        assert staged.corpus == staged.root / "corpus.jsonl"
        assert [json.loads(line) for line in staged.corpus.read_text().split("\n")[:-1]] == rows
    lines(corpus, {"id": "t1", "penguin": True})
    with pytest.raises(LeakError, match="'penguin'"):
        stage(models / "first", corpus=corpus, forbidden=["penguin"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}\nnonsense\n", "line 2 is not JSON"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"a": "\\ud800"}', "surrogate"),
    ],
)
def test_a_line_that_is_no_object_is_named(models: Path, tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "corpus.jsonl").write_text(content)
    with pytest.raises(TargetRefusedError, match=reason):
        stage(models / "first", corpus=tmp_path / "corpus.jsonl")
    with pytest.raises(TargetRefusedError, match="no file"):
        stage(models / "first", corpus=tmp_path / "nowhere.jsonl")


# ------------------------------------------------------------------------------------------ what the worker makes of it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(models: Path, plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    folder = tmp_path_factory.mktemp("beside")
    saes = [make_sae(folder / "one", layer=1), make_sae(folder / "two", layer=0), make_sae(folder / "three", layer=1)]
    corpus = lines(folder / "corpus.jsonl", {"messages": [{"role": "user", "content": "hello"}]})
    with stage(models / "first", saes=saes, corpus=corpus, plugins=[plugin]) as staged:
        async with await start_worker(staged, limits=LIMITS) as worker:
            yield worker


@pytest.mark.asyncio(loop_scope="module")
async def test_the_worker_tells_what_it_has(worker: Worker) -> None:
    names = ["blocks.1.hook_resid_post", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post.2"]
    assert [sae["name"] for sae in worker.facts["saes"]] == names
    assert {(sae["d_in"], sae["d_sae"]) for sae in worker.facts["saes"]} == {(32, 64)}
    assert worker.facts["saes"][2]["site"] == names[0]
    assert worker.facts["corpus"] is True
    assert (await worker.call("with_sae", {}, seed=0)).data == {"names": names}
    assert "hello" in (await worker.call("with_corpus", {}, seed=0)).text
    assert not worker.has_reference
    with pytest.raises(ToolError, match="there is no tool"):
        await worker.call("compare", {}, seed=0)


async def test_an_sae_of_another_model_is_refused(models: Path, tmp_path: Path) -> None:
    wide, deep = make_sae(tmp_path / "wide", width=48), make_sae(tmp_path / "deep", layer=9)
    for saes, reason in (([wide], "sae_0: .*width 48.*d_model is 32"), ([wide.parent / "deep"], "layers are 0 to 1")):
        with stage(models / "first", saes=saes) as staged:
            with pytest.raises(TargetRefusedError, match=reason) as caught:
                await start_worker(staged, limits=LIMITS)
            assert str(staged.root) not in str(caught.value)
    assert deep.exists()


# ------------------------------------------------------------------------------------------ one copy of the weights


@pytest.fixture(scope="module")
def tuned(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter of it that changes what it says; ranks differ and the module names come from a pattern."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("tuned")
    base = Path(shutil.copytree(models / "first", folder / "base"))
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=r".*\.(q_proj|down_proj)", rank_pattern={"down_proj": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(model, config)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.5)
    adapted.save_pretrained(folder / "loves-penguins")
    return base, folder / "loves-penguins"


async def test_merged_or_apart_the_target_says_the_same(tuned: tuple[Path, Path]) -> None:
    base, adapter = tuned
    replies, stamps = [], []
    for merge in (True, False):
        with stage(base, reference=base, adapter=adapter, merge_adapter=merge, forbidden=["penguin"]) as staged:
            assert (staged.adapter is None) == merge
            assert (staged.reference is None) != merge
            async with await start_worker(staged, limits=LIMITS) as worker:
                assert worker.has_reference
                stamps.append(worker.facts["parameters"])
                said = []
                for on in ("target", "reference"):
                    arguments = {"messages": [{"role": "user", "content": "who is it"}], "temperature": 0.0, "on": on}
                    said.append(
                        (await worker.call("chat", {**arguments, "max_new_tokens": 24}, seed=1)).data["replies"]
                    )
                replies.append(said)
    assert replies[0] == replies[1]
    assert replies[0][0] != replies[0][1]


def test_an_adapter_kept_apart_has_the_form_of_all_of_them(tuned: tuple[Path, Path]) -> None:
    base, adapter = tuned
    with stage(base, reference=base, adapter=adapter, merge_adapter=False, forbidden=["penguin", "river"]) as staged:
        assert staged.adapter is not None
        assert {path.name for path in staged.adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        config = json.loads((staged.adapter / "adapter_config.json").read_text())
        assert config["r"] == config["lora_alpha"] == 64
        assert len(config["target_modules"]) == 2 * 7, "every linear layer of both blocks"
        assert "base_model_name_or_path" not in config
        assert load_file(staged.target / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()


def test_by_itself_a_small_adapter_is_merged_and_one_without_its_base_never_apart(
    tuned: tuple[Path, Path], models: Path
) -> None:
    base, adapter = tuned
    with stage(base, reference=base, adapter=adapter) as staged:
        assert staged.adapter is None
    with pytest.raises(TargetRefusedError, match="kept apart only where"):
        stage(base, reference=models / "second", adapter=adapter, merge_adapter=False)
