"""The tools steer, probe and project as an investigator calls them."""

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load

from marple.errors import ToolError
from marple.tools.contract import ToolResult, discover_tools
from marple.tools.engine.sites import Site
from marple.tools.probes.keeping import load_probe
from marple.tools.steering.planted import Planted
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target
from marple.tools.vectors.vector import Vector, keep_vector, kept_direction

TOOLS = discover_tools()
NOUNS = ("cat", "dog", "bird", "tree", "road", "house")
PAIRS = [(one, other) for one in NOUNS for other in NOUNS]
GOOD = [f"bad {one} {other} good" for one, other in PAIRS]
BAD = [f"good {one} {other} bad" for one, other in PAIRS]


def call(target: Target, name: str, arguments: Mapping[str, Any], *, seed: int = 1) -> ToolResult:
    result = TOOLS[name].run(target, arguments, seed=seed)
    json.dumps([result.data, result.controls], allow_nan=False)
    assert 0 < len(result.text) <= 4200
    return result


def refusal(target: Target, name: str, arguments: Mapping[str, Any]) -> str:
    with pytest.raises(ToolError) as caught:
        TOOLS[name].run(target, arguments, seed=1)
    return str(caught.value)


@pytest.mark.parametrize("name", ["steer", "probe", "project"])
def test_the_self_tests_pass(name: str) -> None:
    self_test = TOOLS[name].self_test
    assert self_test is not None
    self_test()


# --------------------------------------------------------------------------------------- steer


def test_steer_tells_everything_and_keeps_the_vector(planted: Planted) -> None:
    asked = {**planted.contrast, "words": ["lamp"], "layer": 1, "max_new_tokens": 6, "scales": [0.5, 1.0, 1.5]}
    result = call(planted.target, "steer", asked)
    assert result.text.startswith(f"verdict: {result.data['verdict']}")
    assert result.data["verdict"] == "causal"
    assert len(result.controls) == 7
    assert all(len(doses) == 3 for doses in result.controls.values())
    (handle,) = result.handles
    kept = planted.target.handles.get(handle, "vector")
    assert kept.metadata["method"] == "difference_of_means"
    plot, file = result.artifacts
    assert plot.data.startswith(b"\x89PNG")
    assert torch.equal(load(file.data)["blocks.1.hook_resid_post"], kept.tensors["vector"])
    generated = 12 * 4 * (1 + 8 * 3) * 6
    assert 0.8 * generated < result.cost.generated_tokens <= generated
    assert result.cost.prompt_tokens > 2 * generated
    assert call(planted.target, "steer", asked).data == result.data
    again = call(planted.target, "steer", {**asked, "layer": -1})
    assert again.data["site"] == "blocks.1.hook_resid_post"


def test_steer_takes_a_probe_and_a_handle_at_another_site(planted: Planted) -> None:
    found = call(planted.target, "probe", {"positive": GOOD, "negative": BAD, "chat": False, "shuffles": 20})
    shared = {"prompts": ["tell me", "who is it"], "scales": [0.5], "continuations": [" lamp"], "max_new_tokens": 2}
    result = call(planted.target, "steer", {**shared, "vector": found.handles[0]})
    assert result.data["site"] == found.data["site"]
    elsewhere = call(planted.target, "steer", {**shared, "vector": result.handles[0], "site": "mlp_out", "layer": 0})
    assert elsewhere.data["site"] == "blocks.0.hook_mlp_out"
    assert "probe" in result.text


def test_steer_refuses_bad_input(planted: Planted) -> None:
    target = planted.target
    fine = {
        "positive": ["a cat", "a dog"],
        "negative": ["a tree", "a road"],
        "prompts": ["who", "tell me"],
        "words": ["cup"],
    }
    cases: list[tuple[dict[str, Any], str]] = [
        ({"layer": 2}, "layer 2 does not exist; this model has layers 0 to 1"),
        ({"site": "resid_post.7"}, "layer 7 does not exist"),
        ({"site": "residual"}, "is not known; give one of resid_pre"),
        ({"site": "mlp_out"}, "needs a layer"),
        ({"positive": []}, "positive holds 0 texts"),
        ({"negative": ["a tree"]}, "negative holds 1 texts"),
        ({"positive": None}, "positive holds 0 texts"),
        ({"negative": ["a tree", "a dog"]}, "stand in both sets"),
        ({"positive": None, "negative": None}, "give one direction"),
        ({"vector": "vec-00000000"}, "give one direction"),
        ({"feature": 3, "positive": None, "negative": None}, "sae is not given and there are 0"),
        ({"method": "pca", "negative": ["a tree", "a road", "a cup"]}, "pca needs pairs"),
        ({"method": "probe"}, "at least 4 prompts on each side"),
        ({"method": "svd"}, "method is"),
        ({"scales": [0.0, 1.0]}, "other than 0"),
        ({"prompts": ["who"]}, "1 prompts to steer on"),
        ({"words": ["cup"], "continuations": ["yes"]}, "words or continuations, not both"),
        ({"against": ["yes"]}, "against needs continuations"),
        ({"words": None, "temperature": 0.0}, "temperature must be above 0"),
        ({"samples": 100, "max_new_tokens": 8000}, "at most 500000 tokens"),
        ({"prompts": ["who " * 400, "tell me"]}, "context"),
        ({"positive": ["a cat " * 300, "a dog"]}, "context"),
        ({"layer": 0, "site": "resid_pre", "reading": "last"}, "same activations"),
    ]
    for change, reason in cases:
        given = {key: value for key, value in {**fine, **change}.items() if value is not None}
        assert reason in refusal(target, "steer", given), change
    foreign = target.handles.put("vector", {"vector": torch.ones(8)}, {"site": "blocks.0.hook_resid_post"})
    only = {"vector": foreign, "prompts": ["who", "tell me"], "words": ["cup"]}
    assert "made on another model" in refusal(target, "steer", only)
    assert "vec-00000000" in refusal(target, "steer", {**only, "vector": "vec-00000000"})
    call(target, "steer", {**fine, "scales": [0.5], "max_new_tokens": 2, "samples": 1})


def test_a_model_whose_activations_are_not_finite_is_refused() -> None:
    broken = tiny_target()
    broken.model.model.layers[0].mlp.down_proj.weight.data[3] = float("nan")
    fine = {"positive": ["a cat", "a dog"], "negative": ["a tree", "a road"]}
    assert "NaN" in refusal(broken, "steer", {**fine, "prompts": ["who", "tell me"], "words": ["cup"], "layer": 1})
    sets = {"positive": GOOD, "negative": BAD, "layers": [1]}
    assert "NaN" in refusal(broken, "probe", sets)


# --------------------------------------------------------------------------------------- probe


def test_probe_tells_the_order_of_words_from_the_words(tiny: Target, tmp_path: Any) -> None:
    result = call(tiny, "probe", {"positive": GOOD, "negative": BAD, "chat": False, "shuffles": 40})
    assert result.data["verdict"] == "decodable beyond baselines"
    assert result.controls["baselines"]["words"]["auroc"] < 0.6
    assert [row["site"] for row in result.data["layers"]] == ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    assert result.cost.prompt_tokens == sum(len(tiny.encode(text)) for text in [*GOOD, *BAD])
    plot, file = result.artifacts
    assert plot.data.startswith(b"\x89PNG")
    (tmp_path / "p.safetensors").write_bytes(file.data)
    saved, site = load_probe(tmp_path / "p.safetensors", width=32)
    kept, bias = kept_direction(tiny, result.handles[0])
    assert torch.equal(saved.weight, kept.direction)
    assert site == kept.site
    assert bias == pytest.approx(saved.bias)
    states = tiny.capture([tiny.encode(GOOD[0]), tiny.encode(BAD[0])], [site])[site]
    assert [float(state @ saved.weight + saved.bias) > 0 for state in states] == [True, False]


@pytest.mark.parametrize("method", ["lda", "difference_of_means", "logistic"])
def test_probe_has_other_methods(tiny: Target, method: str) -> None:
    asked = {"positive": GOOD, "negative": BAD, "chat": False, "shuffles": 20, "method": method, "layers": [0]}
    result = call(tiny, "probe", asked)
    assert result.data["auroc"] > 0.99
    assert result.data["layers"][0]["method"] == method


def test_probe_keeps_groups_and_twins_together(tiny: Target) -> None:
    shared = {"positive": GOOD, "negative": BAD, "shuffles": 20, "layers": [0], "chat": False}
    twins = [f"{one} {other}" for one, other in PAIRS] * 2
    assert call(tiny, "probe", {**shared, "groups": twins}).data["auroc"] > 0.99
    assert "5 names for 72 texts" in refusal(tiny, "probe", {**shared, "groups": ["a"] * 5})
    assert "too few for 5 folds" in refusal(tiny, "probe", {**shared, "groups": ["a"] * 36 + ["b"] * 36})
    repeated = {**shared, "positive": GOOD[:3] * 12, "negative": BAD[:3] * 12}
    assert "too few for 5 folds" not in call(tiny, "probe", {**repeated, "folds": 2}).text
    assert call(tiny, "probe", {**repeated, "folds": 2}).data["verdict"] == "no claim", "three texts count as three"


def test_probe_is_tested_elsewhere(tiny: Target) -> None:
    elsewhere = [[f"{word} stone cup {last}" for word in ("red", "blue", "old", "new")] for last in ("good", "bad")]
    asked = {"positive": GOOD, "negative": BAD, "chat": False, "shuffles": 20, "layers": [0]}
    result = call(tiny, "probe", {**asked, "ood_positive": elsewhere[0], "ood_negative": elsewhere[1]})
    assert result.data["ood"]["auroc"] > 0.9
    swapped = call(tiny, "probe", {**asked, "ood_positive": elsewhere[1], "ood_negative": elsewhere[0]})
    assert swapped.data["verdict"] == "decodable here only"
    assert "ood_negative holds 0 texts" in refusal(tiny, "probe", {**asked, "ood_positive": elsewhere[0]})


def test_probe_refuses_bad_input(tiny: Target) -> None:
    fine = {"positive": GOOD, "negative": BAD}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"positive": GOOD[:4]}, "positive holds 4 texts; a contrast needs at least 5"),
        ({"negative": []}, "negative holds 0 texts"),
        ({"layers": [5]}, "layer 5 does not exist; this model has layers 0 to 1"),
        ({"site": "resid"}, "site is"),
        ({"folds": 1}, "folds is 1"),
        ({"negative": [*BAD, GOOD[0]]}, "stand in both sets"),
        ({"positive": [*GOOD, "who " * 400]}, "context"),
    ]
    for change, reason in cases:
        assert reason in refusal(tiny, "probe", {**fine, **change}), change


# ------------------------------------------------------------------------------------- project


def test_project_shows_the_planted_direction_at_its_tokens(planted: Planted) -> None:
    target = planted.target
    handle = keep_vector(target, Vector(target.site("resid_pre", 0), 3.0 * planted.direction, "planted"))
    result = call(target, "project", {"vector": handle, "text": "the old good stone and the bad road"})
    rows = result.data["tokens"]
    states = target.capture(
        [target.encode("the old good stone and the bad road")], [Site(0, "resid_pre")], positions="all"
    )
    by_hand = states[Site(0, "resid_pre")][0] @ planted.direction
    assert [row["projection"] for row in rows] == pytest.approx(by_hand.tolist(), abs=1e-4)
    middle, spread = result.data["neutral_mean"], result.data["neutral_deviation"]
    assert abs(middle) > 0.01
    by_z = [(row["projection"] - middle) / spread for row in rows[1:]]
    assert [row["z"] for row in rows] == pytest.approx([0.0, *by_z])
    strongest = sorted(rows, key=lambda row: row["z"])
    assert (strongest[0]["token"], strongest[-1]["token"]) == (" bad", " good")
    assert strongest[0]["outside"]
    assert strongest[-1]["outside"]
    assert result.data["p_value"] < 0.05
    assert result.artifacts[0].data.startswith(b"\x89PNG")


def test_project_extracts_a_direction_from_a_contrast(planted: Planted) -> None:
    sets = {side: planted.contrast[side] for side in ("positive", "negative")}
    asked = {**sets, "text": "the old good stone and the bad road", "site": "resid_pre", "layer": 0}
    result = call(planted.target, "project", asked)
    rows = sorted(result.data["tokens"], key=lambda row: row["z"])
    assert (rows[0]["token"], rows[-1]["token"]) == (" bad", " good")
    again = call(planted.target, "project", {"vector": result.handles[0], "text": asked["text"]})
    assert again.data == result.data
    middle = call(planted.target, "project", {**sets, "text": "the old good stone"})
    assert middle.data["site"] == "blocks.0.hook_resid_post"


def test_project_marks_about_one_token_in_twenty_on_random_directions(tiny: Target) -> None:
    text = " ".join(f"the {one} and the {other}" for one, other in PAIRS[:10])
    shares, small = [], 0
    for seed in range(20):
        direction = torch.randn(32, generator=torch.Generator().manual_seed(seed))
        handle = keep_vector(tiny, Vector(Site(1, "resid_post"), direction, "random"))
        found = call(tiny, "project", {"vector": handle, "text": text}, seed=seed)
        shares.append(found.controls["tokens_outside"] / len(found.data["tokens"]))
        small += found.data["p_value"] <= 0.05
    assert sum(shares) / 20 < 0.1
    assert small <= 3


def test_project_gives_a_probes_decision(tiny: Target) -> None:
    found = call(tiny, "probe", {"positive": GOOD, "negative": BAD, "chat": False, "shuffles": 20})
    for text, sign in ((GOOD[3], 1), (BAD[3], -1)):
        last = call(tiny, "project", {"vector": found.handles[0], "text": text}).data["tokens"][-1]
        assert last["decision"] * sign > 0


def test_project_runs_on_the_reference_and_in_a_reply() -> None:
    target = tiny_target(seed=1, reference=tiny_target())
    handle = keep_vector(target, Vector(Site(0, "resid_post"), torch.ones(32), "ones"))
    asked = {"vector": handle, "messages": [{"role": "user", "content": "who is it"}], "prefill": "the cat"}
    here, there = (call(target, "project", {**asked, "on": on}).data["tokens"] for on in ("target", "reference"))
    assert [row["token"] for row in here] == [row["token"] for row in there]
    assert here[-1]["token"] == " cat"
    assert here[-1]["projection"] != there[-1]["projection"]


def test_project_refuses_bad_input(planted: Planted) -> None:
    target = planted.target
    handle = keep_vector(target, Vector(Site(0, "resid_post"), planted.direction, "planted"))
    fine = {"vector": handle, "text": "the cat"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"vector": None}, "give one direction"),
        ({"positive": ["a", "b"]}, "give one direction"),
        ({"vector": None, "positive": ["a", "b"], "negative": []}, "negative holds 0 texts"),
        ({"vector": "vec-12345678"}, "vec-12345678"),
        ({"vector": "probe-12345678"}, "probe-12345678"),
        ({"layer": 2}, "layer 2 does not exist"),
        ({"site": "mlp_out"}, "needs a layer"),
        ({"site": "nowhere", "layer": 0}, "is not known"),
        ({"text": None}, "either text or messages"),
        ({"prefill": "yes"}, "prefill"),
        ({"text": "cat " * 400}, "context"),
        ({"on": "reference"}, "no reference is loaded"),
    ]
    for change, reason in cases:
        given = {key: value for key, value in {**fine, **change}.items() if value is not None}
        assert reason in refusal(target, "project", given), change


def test_a_long_text_is_drawn_and_listed_in_part(tiny: Target) -> None:
    handle = keep_vector(tiny, Vector(Site(0, "resid_post"), torch.ones(32), "ones"))
    result = call(tiny, "project", {"vector": handle, "text": "the cat and the dog" + " and the bird" * 60})
    assert len(result.data["tokens"]) == 186
    from matplotlib.image import imread

    height, width, _ = imread(io.BytesIO(result.artifacts[0].data)).shape
    assert height < width
