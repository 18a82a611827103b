"""The SAE tools on planted features: known answers, controls, and what they refuse."""

import dataclasses
import json
from typing import Any

import pytest
import torch

from marple.errors import ToolError
from marple.tools.calls import Call, during
from marple.tools.contract import ToolResult, discover_tools
from marple.tools.experiments.sae_compare import sae_compare
from marple.tools.experiments.sae_features import sae_features
from marple.tools.experiments.sae_lookup import sae_lookup
from marple.tools.experiments.sae_search import sae_search
from marple.tools.experiments.sae_steer import sae_steer
from marple.tools.saes.activations import collect_activations
from marple.tools.saes.cards import make_cards
from marple.tools.saes.explanations import Explanation
from marple.tools.saes.planted import planted_target
from marple.tools.saes.weights import Weights
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target

WORDS = ["lamp", "chair", "river", "stone"]
NAMES = ["sae_compare", "sae_features", "sae_lookup", "sae_search", "sae_steer"]
COLOURS = ("red", "green", "blue", "old", "new", "good", "bad", "two")
PNG = b"\x89PNG"


def with_cards(target: Target) -> Target:
    sae = target.saes["planted"]
    texts = ["red lamp", "old chair and a lamp", "see the river", "a new stone"]
    read = collect_activations(target, [target.encode(text) for text in texts], sae.site)
    named = {2: (Explanation("water that flows", "a person"),)}
    target.saes = {"planted": dataclasses.replace(sae, cards=make_cards(sae, target, read), explanations=named)}
    return target


@pytest.fixture(scope="module")
def target() -> Target:
    return with_cards(planted_target(WORDS))


def check(result: ToolResult) -> ToolResult:
    """What holds for every result."""
    json.dumps([result.data, result.controls], allow_nan=False)
    assert len(result.text) <= 4200
    assert all(artifact.data.startswith(PNG) for artifact in result.artifacts)
    return result


@pytest.mark.parametrize("name", NAMES)
def test_self_tests_pass(name: str) -> None:
    spec = discover_tools()[name]
    assert spec.self_test is not None
    spec.self_test()
    assert (spec.rung, spec.needs) == (3, ("sae",))


@pytest.mark.parametrize("name", NAMES)
def test_examples_run_and_without_an_sae_tools_say_what_is_missing(name: str, target: Target) -> None:
    spec = discover_tools()[name]
    example = {"features": [0, 1]} if name == "sae_lookup" else dict(spec.example)
    check(spec.run(target, example, seed=0))
    with pytest.raises(ToolError, match="needs"):
        spec.run(tiny_target(), example, seed=0)


# ------------------------------------------------------------------------------------------- sae_features


def test_features_of_a_text_with_their_places(target: Target) -> None:
    result = check(sae_features(target, seed=0, text="a lamp and river to the lamp"))
    rows = {row["feature"]: row for row in result.data["features"]}
    assert set(rows) == {0, 2}
    assert rows[0]["share_of_tokens"] == pytest.approx(2 / 7, abs=1e-3)
    assert result.data["tokens"][2]["features"] == [[0, 0.25]]
    assert result.cost.prompt_tokens == 8
    assert result.controls["reconstruction"]["fvu"] > 0
    assert '"water that flows"' in result.text


def test_features_can_be_asked_for_by_number(target: Target) -> None:
    result = sae_features(target, seed=0, text="red lamp", features=[3], top=1)
    assert [(row["feature"], row["activation"]) for row in result.data["features"]] == [(0, 0.25), (3, 0.0)]


def test_what_is_always_on_does_not_come_first(target: Target) -> None:
    sae = target.saes["planted"]
    always = dataclasses.replace(sae.cards[0], density=1.0, mean=0.3)
    beside = planted_target(WORDS)
    beside.saes = {"planted": dataclasses.replace(sae, cards={0: always})}
    rows = sae_features(beside, seed=0, text="red lamp lamp river").data["features"]
    assert [row["feature"] for row in rows] == [2, 0]
    assert rows[1]["expected_mean"] == pytest.approx(0.3)


def test_a_text_that_activates_nothing_says_so(target: Target) -> None:
    result = check(sae_features(target, seed=0, text="say yes"))
    assert "no feature is active" in result.text
    assert result.artifacts == ()


def test_an_sae_that_explains_little_is_announced() -> None:
    call = Call()
    with during(call):
        sae_features(planted_target(WORDS), seed=0, text="who is the old cat")
    assert any("unexplained" in line for line in call.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "red", "position": 5}, "position 5 is outside"),
        ({"text": "red", "features": [4]}, "no feature 4; this SAE has features 0 to 3"),
        ({"text": "red", "features": [-1]}, "no feature -1"),
        ({"text": "red", "sae": "other"}, '"other" is not loaded; there are: planted'),
        ({}, "either text or messages"),
        ({"text": "red lamp " * 200}, "context"),
        ({"text": "red", "on": "reference"}, "reference"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(target: Target, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        sae_features(target, seed=0, **arguments)


def test_an_sae_of_another_model_is_refused() -> None:
    target = planted_target(WORDS)
    sae = target.saes["planted"]
    narrow = Weights(torch.ones(16, 4), torch.ones(4, 16), torch.zeros(4), torch.zeros(16))
    for other, message in (
        (dataclasses.replace(sae, weights=narrow), "width 16, but the target's d_model is 32"),
        (dataclasses.replace(sae, hook_name="blocks.9.hook_resid_post"), "layers are 0 to 1"),
    ):
        target.saes = {"other": other}
        for call in (
            lambda: sae_features(target, seed=0, text="red"),
            lambda: sae_lookup(target, seed=0, features=[0]),
            lambda: sae_steer(target, seed=0, feature=0, prompts=["red", "old"]),
            lambda: sae_compare(target, seed=0, first=["red"] * 4, second=["old"] * 4),
        ):
            with pytest.raises(ToolError, match=message):
                call()


def test_several_saes_must_be_told_apart(target: Target) -> None:
    both = planted_target(WORDS)
    both.saes = {"a": target.saes["planted"], "b": target.saes["planted"]}
    with pytest.raises(ToolError, match="there are 2: a, b"):
        sae_features(both, seed=0, text="red")
    assert sae_features(both, seed=0, text="red lamp", sae="b").data["sae"] == "b"


# -------------------------------------------------------------------------------------------- sae_compare


def test_two_sets_differ_in_the_planted_features(target: Target) -> None:
    first, second = [f"{one} lamp" for one in COLOURS], [f"{one} chair" for one in COLOURS]
    result = check(sae_compare(target, seed=1, first=first, second=second, chat=False))
    found = [row for row in result.data["rows"] if row["found"]]
    assert {(row["feature"], row["score"] > 0) for row in found} == {(0, True), (1, False)}
    assert all(row["halves_agree"] for row in found)
    assert result.controls["half_against_half"]["found"] == 0
    assert result.controls["reconstruction"]["first"]["fvu"] >= 0
    vector = target.handles.get(result.handles[0], "vector").tensors["vector"]
    row = target.saes["planted"].weights.W_dec[0]
    assert torch.nn.functional.cosine_similarity(vector, row, dim=0) > 0.999
    assert result.cost.prompt_tokens == sum(len(target.encode(text)) for text in (*first, *second))


def test_the_vector_and_what_it_promotes_stand_before_everything_that_may_be_cut(target: Target) -> None:
    first, second = [f"{one} lamp" for one in COLOURS], [f"{one} chair" for one in COLOURS]
    result = check(sae_compare(target, seed=1, first=first, second=second, chat=False))
    lines = result.text.splitlines()
    assert lines[1].startswith(f"vector {result.data['vector']}: what the 1 features that rose add at blocks.0.")
    assert [line.partition(" promote together: ")[0] for line in lines[2:4]] == [
        "tokens that risen features",
        "tokens that fallen features",
    ]
    none = sae_compare(target, seed=1, first=first, second=first, chat=False)
    assert none.text.splitlines()[1] == "no feature rose, so there is no vector of those that rose"


def test_what_the_sae_was_trained_on_is_said_as_far_as_its_files_do() -> None:
    target = planted_target(WORDS)
    arguments: dict[str, Any] = {"first": list(COLOURS), "second": WORDS, "chat": False}
    bare = sae_compare(target, seed=0, **arguments)
    assert "was trained on, by its files: no model named, no texts named\n" in bare.text
    made = {"model_name": "base<|end|>", "dataset_path": "a/b", "measured": {"training_tokens": 90}}
    target.saes = {"planted": dataclasses.replace(target.saes["planted"], metadata=made)}
    result = check(sae_compare(target, seed=0, **arguments))
    assert 'by its files: activations of "base\\u003c|end|>", texts "a/b", 90 tokens\n' in result.text
    assert result.data["trained_on"] == {"model": "base<|end|>", "texts": "a/b", "tokens": 90}
    assert result.data["rows"] == bare.data["rows"]


def test_features_that_promote_content_come_first_and_the_data_keeps_its_order() -> None:
    target = with_cards(planted_target(WORDS))
    sae = target.saes["planted"]
    first, second = [f"{one} lamp" for one in COLOURS], [f"{one} chair" for one in COLOURS]

    def compared(raises: dict[int, tuple[str, ...]]) -> ToolResult:
        promoted = {index: tuple((token, 9.0) for token in tokens) for index, tokens in raises.items()}
        cards = {index: dataclasses.replace(sae.cards[index], raises=one) for index, one in promoted.items()}
        target.saes = {"planted": dataclasses.replace(sae, cards={**sae.cards, **cards}, explanations={})}
        return check(sae_compare(target, seed=1, first=first, second=second, chat=False))

    strong, weak = (row["feature"] for row in compared({}).data["rows"] if row["found"])
    form = (" the", ".", target.tokenizer.eos_token, " acme", " You")
    result = compared({strong: form, weak: (" acme", " velora", ".")})
    assert [row["feature"] for row in result.data["rows"][:2]] == [strong, weak]
    assert [row["promotes_content"] for row in result.data["rows"][:2]] == [False, True]
    lines = [line.partition(":")[0] for line in result.text.splitlines()]
    at = lines.index("found, features that promote content words (1 of 2 kept)")
    assert lines[at + 1] == f"feature {weak}"
    assert lines[at + 2].startswith(
        "found, features that promote punctuation, function words, special tokens or nothing"
    )
    assert lines[at + 3] == f"feature {strong}"


def test_without_cards_the_lens_says_what_features_promote() -> None:
    target = planted_target(["the", "lamp", "of", "chair"], where="head")
    first, second = ([f"{one} {word}" for one in COLOURS] for word in ("the lamp", "river"))
    result = check(sae_compare(target, seed=1, first=first, second=second, chat=False))
    found = {row["feature"]: row for row in result.data["rows"] if row["found"]}
    assert set(found) == {2, 3}
    assert [found[at]["promotes_on_model"][0][0] for at in (2, 3)] == [" of", " chair"]
    assert [found[at]["promotes_content"] for at in (2, 3)] == [False, True]
    assert ', raises " chair" ' in result.text
    assert 'fallen features promote together: content words " chair"; others " of"\n' in result.text
    assert [one["token"] for one in result.data["content_promoted_together"]["fallen"]] == [" chair"]
    assert {one["token"] for one in result.data["promoted_together"]["fallen"]} == {" chair", " of"}


def test_target_and_reference_differ_where_the_target_was_changed() -> None:
    words = dict.fromkeys(WORDS)
    reference = tiny_target()
    changed = planted_target(list(words), reference=reference)
    sae = changed.saes["planted"]
    token = changed.tokenizer.convert_tokens_to_ids(" cup")
    with torch.no_grad():
        # To the target, a cup is a river.
        changed.model.get_input_embeddings().weight[token, 1:] = sae.weights.W_dec[2, 1:]
    prompts = [f"{one} cup" for one in COLOURS]
    result = check(sae_compare(changed, seed=0, first=prompts, chat=False))
    assert [row["feature"] for row in result.data["rows"] if row["found"]] == [2]
    assert result.data["rows"][0]["target_share"] == 1
    assert result.data["rows"][0]["reference_share"] == 0
    assert set(result.controls["reconstruction"]) == {"target", "reference"}
    same = sae_compare(changed, seed=0, first=[f"{one} dog" for one in COLOURS], chat=False)
    assert not any(row["found"] for row in same.data["rows"])


def test_what_the_reference_shows_too_is_marked() -> None:
    beside = planted_target(WORDS, reference=tiny_target())
    first, second = [f"{one} lamp" for one in COLOURS], [f"{one} dog" for one in COLOURS]
    result = sae_compare(beside, seed=0, first=first, second=second, chat=False)
    assert result.data["rows"][0]["reference_shows_it_too"]
    assert result.controls["on_reference"] == {"found": 1, "features": [0]}


def test_replies_are_read_and_paid_for(target: Target) -> None:
    result = check(
        sae_compare(target, seed=0, first=list(COLOURS), second=list(WORDS), read="reply", pool="max", max_new_tokens=5)
    )
    assert result.cost.generated_tokens > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": ["red lamp"]}, "no reference is loaded"),
        ({"first": ["red"] * 8, "second": ["old"] * 3}, "second has 3 prompts"),
        ({"first": ["red"] * 8, "second": ["old"] * 8, "chat": False, "prefill": "a"}, "chat"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(target: Target, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        sae_compare(target, seed=0, **arguments)


# ----------------------------------------------------------------------------- sae_lookup, search and steer


def test_a_lookup_measures_on_the_texts_given(target: Target) -> None:
    result = check(sae_lookup(target, seed=0, features=[2, 0], texts=["green river", "the lamp"], chat=False))
    first = result.data["features"][0]
    assert first["explanations"] == [{"text": "water that flows", "source": "a person"}]
    assert first["on_texts"]["density"] == pytest.approx(1 / 4)
    assert first["card"]["examples"][0]["token"] == " river"
    assert result.controls["random_other_feature"]["feature"] in (1, 3)
    assert {other for other, _ in first["nearest"]} == {0, 1, 3}
    with pytest.raises(ToolError, match="no feature 9"):
        sae_lookup(target, seed=0, features=[0, 9])


def test_a_search_finds_words_in_labels_and_in_tokens(target: Target) -> None:
    def found(*words: str) -> list[int]:
        return [row["feature"] for row in check(sae_search(target, seed=0, words=list(words))).data["features"]]

    assert found("flow")[0] == 2, "the beginning of a word matches"
    assert found("CHAIR")[0] == 1
    assert "lows" not in str(sae_search(target, seed=0, words=["lows"]).data["features"])
    assert found("nothing like it") == []
    bare = planted_target(WORDS)
    with pytest.raises(ToolError, match="neither cards nor explanations"):
        sae_search(bare, seed=0, words=["lamp"])


def test_steering_by_a_feature_has_other_features_beside_it() -> None:
    target = planted_target([*WORDS, "bird"], where="head")
    prompts = ["who is it", "tell me", "say one", "buy a cup", "see the road", "what is old"]
    shared: dict[str, Any] = {"prompts": prompts, "continuations": [" river"], "samples": 1, "max_new_tokens": 4}
    result = check(sae_steer(target, seed=0, feature=2, scales=[0.4, 0.8], **shared))
    assert result.data["verdict"] == "causal"
    others = {name for name in result.controls if name.startswith("feature ")}
    assert len(others) == 3
    assert "feature 2" not in others
    assert any(name.startswith("random") for name in result.controls)
    assert result.cost.generated_tokens > 0
    for arguments, message in (
        ({"feature": 5}, "features 0 to 4"),
        ({"feature": 0, "scales": [0.0]}, "scales"),
        ({"feature": 0, "words": ["a"]}, "words or continuations"),
    ):
        with pytest.raises(ToolError, match=message):
            sae_steer(target, seed=0, **{**shared, **arguments})


def test_a_scale_that_destroys_fluency_is_no_evidence() -> None:
    target = planted_target(WORDS, where="head")
    prompts = ["who is it", "tell me", "say one", "buy a cup"]
    result = sae_steer(
        target, seed=0, feature=0, prompts=prompts, scales=[500.0], words=["lamp"], samples=1, max_new_tokens=6
    )
    assert result.data["verdict"] == "indistinguishable from control"
    assert not result.data["doses"][0]["fluent"]
    assert "NOT FLUENT" in result.text
