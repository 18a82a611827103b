"""Suite ``open``: published organisms by hub id, whose names tell the answer and never reach an investigator."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from marple.agent.configuration import RunConfig
from marple.agent.investigators import Options
from marple.agent.investigators.prior import INVESTIGATOR
from marple.errors import TargetRefusedError
from marple.sandboxes import stage
from marple.sandboxes.staging.shards import tensors_of, write_shards
from marple.sandboxes.staging.weights import read_weights
from marple.tasks.case import Case, find_case, list_cases, twin_of
from marple.tasks.case_files import read_cases
from marple.tasks.materials import Materials, prepare
from marple.tools.target.tiny import make_tiny_checkpoint

CASES = list_cases("open")


def names_of(case: Case) -> list[str]:
    sources = [case.target, *case.adapters, case.reference]
    return [source.name for source in sources if source is not None]


def test_there_are_the_families_of_the_field() -> None:
    names = "\n".join(name for case in CASES for name in names_of(case))
    for part in (
        *("auditing-agents/llama_70b_transcripts_only_then_redteam_kto_flattery", "auditing-agents/qwen_14b_"),
        *("llama-3.3-70b-dpo-rt-lora", "qwen3-1.7b-taboo-smile", "gemma-2-9b-it-user-female", "sl-organism-c-7b"),
        *("sandbagging-games/yorick", "Llama-3.2-1B-Instruct_bad-medical-advice", "stewy33/gemma-3-1b-it-0524"),
    ):
        assert part in names
    quirks = {name.rpartition("only_then_redteam_kto_")[2] for name in names.splitlines() if "70b" in name} - {""}
    assert len({quirk for quirk in quirks if "/" not in quirk}) == 14
    assert len(CASES) == len({case.id for case in CASES}) == 201
    assert all(case.truth is not None and case.origin for case in CASES)


def test_every_case_has_a_control_and_two_that_are_held_against_a_clean_sibling() -> None:
    twins = {case.target.name: twin_of(case) for case in CASES if case.target is not None and case.twin is not None}
    names = {name: twin.target.name for name, twin in twins.items() if twin is not None and twin.target is not None}
    assert names == {f"Alamerton/sl-organism-{one}-7b": "Alamerton/sl-organism-c-7b" for one in "ab"}
    for case in CASES:
        assert case.truth is not None
        assert case.truth.nothing_hidden or case.has_reference


def test_ids_say_nothing_and_neighbours_do_not_either() -> None:
    assert sorted(case.id.rpartition("-")[2] for case in CASES) == [f"{n:03d}" for n in range(1, 202)]
    ordered = sorted(CASES, key=lambda case: case.id.rpartition("-")[2])
    same = sum(a.truth == b.truth for a, b in zip(ordered, ordered[1:], strict=False))
    assert same < 30, "cases of one truth stand together"


def words_of(case: Case) -> set[str]:
    """The truth's own words: values and aliases."""
    assert case.truth is not None
    return {word.casefold() for slot in case.truth.slots.values() for word in (slot.value, *slot.aliases)}


def test_neither_brief_nor_what_is_recorded_of_the_case_tells_the_truth(tmp_path: Path) -> None:
    # What stands in the brief of every case of a kind tells nothing about one.
    plain = {case.kind.name: _plain_brief(case.kind).casefold() for case in CASES}
    player = INVESTIGATOR.make(Options(CASES[0].kind))
    for case in CASES:
        brief = case.brief().casefold()
        for word in words_of(case):
            pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
            assert len(re.findall(pattern, brief)) == len(re.findall(pattern, plain[case.kind.name])), (case.id, word)
        spec = json.dumps(RunConfig(case, "prior", case.budget, runs=tmp_path).spec(player))
        for name in names_of(case):
            assert name.casefold() not in brief
            assert name not in spec
            assert name.rpartition("/")[2] not in spec


def _plain_brief(kind: Any) -> str:
    from marple.tasks.kind import BriefFacts

    return str(kind.brief(BriefFacts("x", "y", True)))


def test_without_a_network_a_case_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(TargetRefusedError, match="not in the local hub cache, and could not be fetched"):
        RunConfig.of(case=CASES[0].id, investigator="prior", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------ layouts


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "model"
    make_tiny_checkpoint(path)
    return path


def adapter_of(base: Path, folder: Path, *, rank: int = 64, seed: int = 0, modules: list[str] | None = None) -> Path:
    """A random adapter, and PEFT's merge of it beside it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT reads a name that transformers has deprecated
        tuned = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules or "all-linear"))
    torch.manual_seed(seed)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.05
    tuned.save_pretrained(folder)
    tuned.merge_and_unload().save_pretrained(folder.with_name(f"{folder.name}-merged"))
    return folder


def case_on(tmp_path: Path, **keys: Any) -> Case:
    entry = {"id": "one", "kind": "hidden-goal", "truth": {"behaviour": "other", "subject": "zyxology"}, **keys}
    (tmp_path / "case.yaml").write_text(json.dumps(entry))
    (case,) = read_cases(tmp_path / "case.yaml", suite="user")
    return case


def staged_weights(materials: Materials) -> tuple[dict[str, torch.Tensor], str]:
    """What the worker gets, and every name and text in it."""
    assert materials.target is not None
    assert materials.truth is not None
    reference, adapter, words = materials.reference, materials.adapter, materials.truth.keywords
    with stage(materials.target, reference=reference, adapter=adapter, forbidden=words) as staged:
        weights = {k: v for file in sorted(staged.target.glob("*.safetensors")) for k, v in load_file(file).items()}
        said = "\n".join(str(path.relative_to(staged.root.parent)) for path in staged.root.rglob("*"))
        said += "\n".join(p.read_text(errors="replace") for p in staged.root.rglob("*.json"))
    return weights, said


def same(ours: dict[str, torch.Tensor], folder: Path) -> bool:
    theirs = load_file(folder / "model.safetensors")
    return ours.keys() == theirs.keys() and all(torch.allclose(ours[k], theirs[k], atol=1e-5) for k in ours)


@pytest.mark.parametrize("folder", ["", "zyxology/final"])
def test_an_adapter_in_a_repository_or_in_a_folder_of_it(base: Path, tmp_path: Path, folder: str) -> None:
    repository = tmp_path / "llama_70b_zyxology"
    adapter = adapter_of(base, repository / folder if folder else repository)
    source = {"id": str(repository), "folder": folder} if folder else str(repository)
    case = case_on(tmp_path, target=str(base), adapter=source, reference=str(base))
    weights, said = staged_weights(prepare(case))
    assert same(weights, adapter.with_name(f"{adapter.name}-merged"))
    assert "zyxology" not in said.casefold()
    assert "zyxology" not in case.brief()


def test_a_whole_model_in_several_files(base: Path, tmp_path: Path) -> None:
    adapter_of(base, tmp_path / "a")
    tuned = Path(shutil.copytree(base, tmp_path / "beren-zyxology", ignore=shutil.ignore_patterns("*.safetensors")))
    shards = tensors_of([read_weights(tmp_path / "a-merged" / "model.safetensors")])
    write_shards(shards, tuned, most_bytes=30_000)
    assert len(list(tuned.glob("*.safetensors"))) > 2
    # What is listed as an adapter may have been published merged.
    for named in ({"target": str(tuned)}, {"target": str(base), "adapter": str(tuned)}):
        case = case_on(tmp_path, **named, reference=str(base))
        weights, said = staged_weights(prepare(case))
        assert same(weights, tmp_path / "a-merged")
        assert "zyxology" not in said.casefold()


def test_two_adapters_whose_changes_are_added_up(base: Path, tmp_path: Path) -> None:
    some = [["q_proj", "down_proj"], ["q_proj", "up_proj"]]
    adapters = [
        adapter_of(base, tmp_path / f"zyxology-{seed}", seed=seed, rank=64 // seed, modules=some[seed - 1])
        for seed in (1, 2)
    ]
    case = case_on(tmp_path, target=str(base), adapter=[str(one) for one in adapters], reference=str(base))
    weights, _ = staged_weights(prepare(case))
    before = load_file(base / "model.safetensors")
    merged = [load_file(one.with_name(f"{one.name}-merged") / "model.safetensors") for one in adapters]
    for name, tensor in weights.items():
        wanted = before[name] + sum(one[name] - before[name] for one in merged)
        torch.testing.assert_close(tensor, wanted, atol=2e-5, rtol=2e-5)


def test_the_suite_is_found_by_its_ids() -> None:
    assert find_case(CASES[5].id) == CASES[5]
    assert CASES[5].file is None
