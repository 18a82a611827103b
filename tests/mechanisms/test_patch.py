import json
from typing import Any

import pytest
import torch

from marple.errors import ToolError
from marple.tools.contract import ToolResult, tool_spec
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site
from marple.tools.experiments.patch import patch
from marple.tools.patching import Contrast, PatchGrid, fillings, logit_differences
from marple.tools.target.target import Target
from tests.mechanisms.conftest import SUBJECT, TRIGGER

SPEC = tool_spec(patch)
CLEAN, CORRUPTED = f"see the {TRIGGER} and the old house", "see the stone and the old house"
ASKED = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": f" {SUBJECT}", "other": " cat", "chat": False}


def call(target: Target, seed: int = 1, **given: Any) -> ToolResult:
    result = SPEC.run(target, {**ASKED, **given}, seed=seed)
    json.dumps([result.data, result.controls], allow_nan=False)
    assert 0 < len(result.text) <= 4000
    assert result.artifacts[0].data.startswith(b"\x89PNG")
    return result


def contrast(target: Target) -> Contrast:
    token = target.tokenizer.convert_tokens_to_ids
    ids = [tuple(target.encode(text)) for text in (CLEAN, CORRUPTED)]
    return Contrast(ids[0], ids[1], token(f" {SUBJECT}"), token(" cat"))


def test_patching_everything_at_the_input_gives_the_clean_run(planted: Target) -> None:
    pair = contrast(planted)
    site = Site(0, "resid_pre")
    states = planted.capture([pair.clean], [site], positions="all")[site][0]
    edit = Intervention(site, states, op="replace", phases=("prompt",), positions=tuple(range(len(states))))
    patched, clean, corrupted = logit_differences(
        planted, [pair.corrupted, pair.clean, pair.corrupted], [[edit], [], []], pair
    ).tolist()
    assert patched == clean
    assert abs(clean - corrupted) > 0.5


def test_a_cell_equals_the_same_patch_by_hand(planted: Target) -> None:
    pair = contrast(planted)
    result = call(planted, positions=[4, 6], layers=[0])
    model = planted.model
    differences = []
    for ids, source, position in ((pair.corrupted, pair.clean, 4), (pair.clean, pair.corrupted, 6)):
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([source]), output_hidden_states=True).hidden_states[1][0, position]

            def put(module: Any, arguments: Any, output: Any, at: int = position, value: torch.Tensor = states) -> None:
                output[:, at] = value

            handle = model.model.layers[0].register_forward_hook(put)
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            handle.remove()
        differences.append(float(logits[pair.answer] - logits[pair.other]))
    ends = result.data["logit_difference"]
    scaled = [(value - ends["corrupted"]) / (ends["clean"] - ends["corrupted"]) for value in differences]
    assert result.data["denoising"]["metric"][0][0] == pytest.approx(scaled[0], abs=1e-3)
    assert result.data["noising"]["metric"][0][1] == pytest.approx(scaled[1], abs=1e-3)


def test_the_word_decides_at_the_input_and_the_last_position_at_the_end(planted: Target) -> None:
    at_input = call(planted, site="resid_pre", layers=[0]).data
    assert at_input["positions"][0]["token"] == f" {TRIGGER} /  stone"
    for direction, full, none in (("denoising", 1, 0), ("noising", 0, 1)):
        assert at_input[direction]["metric"][0] == pytest.approx([full, *[none] * 4], abs=1e-3)
    assert at_input["denoising"]["beyond_controls"][0] == [True, *[False] * 4]
    # Any other word takes the answer away, too: that the clean word is needed is no finding.
    assert not at_input["noising"]["beyond_controls"][0][0]
    assert at_input["noising"]["needed"][0] == [True, *[False] * 4]
    assert "needed" not in at_input["denoising"]
    at_end = call(planted, layers=[-1]).data
    for direction, full, none in (("denoising", 1, 0), ("noising", 0, 1)):
        assert at_end[direction]["metric"][0] == pytest.approx([*[none] * 4, full], abs=1e-3)


def test_the_layer_that_copies_the_word_is_found(planted: Target) -> None:
    result = call(planted, site="attn_out")
    metric = result.data["denoising"]["metric"]
    assert metric[0] == pytest.approx([0, 0, 0, 0, 1], abs=1e-3)
    assert metric[1] == pytest.approx([0] * 5, abs=1e-3)
    assert result.data["denoising"]["beyond_controls"] == [[False] * 4 + [True], [False] * 5]
    assert "blocks.0.hook_attn_out, position -1" in result.text.splitlines()[2]


def test_noise_is_as_long_as_the_change_and_points_elsewhere() -> None:
    generator = torch.Generator().manual_seed(0)
    states = {name: torch.randn(2, 3, 64, generator=generator) for name in ("clean", "corrupted", "unrelated")}
    for direction, base, source in (("denoising", "corrupted", "clean"), ("noising", "clean", "corrupted")):
        other, noise, unrelated = fillings(states, direction, generator)  # type: ignore[arg-type]
        assert torch.equal(other, states[source])
        assert torch.equal(unrelated, states["unrelated"])
        change, random = states[source] - states[base], noise - states[base]
        torch.testing.assert_close(random.norm(dim=-1), change.norm(dim=-1))
        assert float(torch.cosine_similarity(random, change, dim=-1).abs().max()) < 0.5


def test_a_cell_counts_only_beyond_every_control_at_its_position() -> None:
    metric = torch.tensor([[0.5, 0.5, 0.01], [-0.9, 0.1, 0.0]])
    noise = torch.tensor([[0.1, 0.6, 0.0], [-0.2, 0.0, 0.0]])
    unrelated = torch.tensor([[0.4, 0.0, 0.0], [0.0, 0.0, 0.0]])
    forth = PatchGrid("denoising", metric, noise, unrelated)
    assert forth.beyond_controls().tolist() == [[True, False, False], [False, False, False]]
    torch.testing.assert_close(forth.control_range(), torch.tensor([[-0.2, 0.4], [0.0, 0.6], [0.0, 0.0]]))
    back = PatchGrid("noising", 1 - metric, 1 - noise, 1 - unrelated)
    assert torch.equal(back.beyond_controls(), forth.beyond_controls())


def test_a_needed_cell_is_judged_by_denoising(planted: Target) -> None:
    both = call(planted, site="resid_pre", layers=[0])
    assert "1 are needed (replaced, at least half is lost), in 1 of them a control takes as much away" in both.text
    assert both.text.count(": needed, specific by denoising (1.00)") == 1
    alone = call(planted, site="resid_pre", layers=[0], direction="noising")
    assert alone.text.count(": needed; whether it is specific takes denoising") == 1
    assert both.controls["noising"]["needed"] == 1


def test_needed_is_half_of_the_lead_and_alike_where_a_control_takes_as_much() -> None:
    metric, ones = torch.tensor([[0.1, 0.1, 0.1, 0.6]]), torch.ones(1, 4)
    noise, unrelated = torch.tensor([[0.9, 0.1, 0.2, 0.1]]), torch.tensor([[0.8, 0.9, 0.11, 0.1]])
    back = PatchGrid("noising", metric, noise, unrelated)
    assert back.needed().tolist() == [[True, True, True, False]]
    assert back.replaced_alike().tolist() == [[False, True, True, False]]
    assert not PatchGrid("denoising", metric - metric, ones, ones).needed().any()


def test_an_empty_prefill_is_none(planted: Target) -> None:
    given: dict[str, Any] = {"chat": True, "layers": [0], "positions": [-1]}
    assert call(planted, prefill="", **given).data == call(planted, **given).data


def test_all_patches_go_to_the_engine_together(planted: Target) -> None:
    planted.engine.forget()
    before = planted.engine.work.forwards
    call(planted, seed=99)
    together = planted.engine.work.forwards - before
    assert together <= 12, f"{together} forwards for {3 * 2 * 2 * 5} patches"


def test_prompts_of_different_length_need_positions_from_the_end(planted: Target) -> None:
    longer = "see the very good stone and the old house"
    with pytest.raises(ToolError, match=r'clean has 8 tokens and corrupted 1\d.*" river".*" stone"'):
        call(planted, corrupted=longer)
    with pytest.raises(ToolError, match="positions do not correspond"):
        call(planted, corrupted=longer, positions=[1])
    result = call(planted, corrupted=longer, positions=[-1, -2])
    assert [one["position"] for one in result.data["positions"]] == [-2, -1]
    assert result.data["denoising"]["metric"][-1][-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"corrupted": CLEAN}, "the same tokens"),
        ({"other": f" {SUBJECT} road"}, "begin with the same token"),
        ({"other": " "}, "has no tokens"),
        ({"layers": [2]}, "0 to 1"),
        ({"positions": [8]}, "allowed are 0 to 7"),
        ({"system": "be good"}, "need chat true"),
        ({"clean": "see " * 300, "corrupted": "buy " * 300}, "context holds 256"),
        ({"site": "resid"}, "site"),
    ],
)
def test_bad_arguments_are_refused(planted: Target, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        call(planted, **given)


def test_prompts_with_the_same_answer_are_refused(plain: Target) -> None:
    with torch.no_grad():
        weight = plain.model.model.embed_tokens.weight
        ids = [plain.tokenizer.convert_tokens_to_ids(f" {word}") for word in (TRIGGER, "stone")]
        kept = weight[ids[0]].clone()
        weight[ids[0]] = weight[ids[1]]
    plain.engine.forget()
    with pytest.raises(ToolError, match="must lead to different answers"):
        call(plain)
    with torch.no_grad():
        weight[ids[0]] = kept
    plain.engine.forget()
