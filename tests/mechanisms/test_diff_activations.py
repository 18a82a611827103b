import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch

from marple.errors import ToolError
from marple.tools.contract import Cost, ToolResult, tool_spec
from marple.tools.diffing import report
from marple.tools.diffing.consistency import describe_layers, half_differences
from marple.tools.diffing.excerpts import spoken_tokens
from marple.tools.diffing.excess import excess_table, find_excess
from marple.tools.diffing.layers import lens_lines, read_layers
from marple.tools.diffing.reading import GROUPS, Passage, Reading, SparseRow
from marple.tools.engine.sites import Site
from marple.tools.experiments.diff_activations import diff_activations
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target
from tests.mechanisms.conftest import SUBJECT, TRIGGER, triggered_target

SPEC = tool_spec(diff_activations)
FRAMES = [
    "the {} is old",
    "see the {}",
    "tell me about a {}",
    "i like the {} and you",
    "a {} we know",
    "one {} is good",
]
CONDITIONS = {word: [frame.format(word) for frame in FRAMES] for word in (TRIGGER, "stone", "bird", "road", "table")}


def call(target: Target, seed: int = 1, **given: Any) -> ToolResult:
    result = SPEC.run(target, given, seed=seed)
    json.dumps([result.data, result.controls], allow_nan=False)
    assert 0 < len(result.text) <= 4000
    assert result.artifacts[0].data.startswith(b"\x89PNG")
    return result


def test_it_finds_what_the_target_wants_to_say_and_what_sets_it_off(planted: Target) -> None:
    result = call(planted, conditions=CONDITIONS, max_new_tokens=6)
    found = [row for row in result.data["excess"]["by_condition"] if row["found"]]
    assert (found[0]["condition"], found[0]["token"].strip()) == (TRIGGER, SUBJECT)
    assert {row["condition"] for row in found} == {TRIGGER}
    assert found[0]["excess"] > 0.2
    assert found[0]["elsewhere"] == pytest.approx(0, abs=1e-6)
    assert f'" {SUBJECT}" under "{TRIGGER}"' in result.text
    assert max(result.data["divergence"], key=result.data["divergence"].__getitem__) == TRIGGER


def test_the_plot_says_that_bars_of_a_condition_are_what_the_others_lack(
    planted: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    units: list[str] = []

    def plot(*given: Any, unit: str, **more: Any) -> Any:
        units.append(unit)
        return drawn(*given, unit=unit, **more)

    drawn = report.plot
    monkeypatch.setattr(report, "plot", plot)
    call(planted, conditions=CONDITIONS, max_new_tokens=6)
    call(planted, conditions={TRIGGER: CONDITIONS[TRIGGER]}, max_new_tokens=6)
    assert units == ["tokens per reply (by condition: beyond the others)", "tokens per reply"]


def test_equal_models_differ_in_nothing() -> None:
    target = tiny_target(seed=5, reference=tiny_target(seed=5))
    result = call(target, conditions=CONDITIONS, max_new_tokens=6)
    assert all(layer["norm"] == 0 for layer in result.data["layers"])
    assert all(row["excess"] == 0 and not row["found"] for rows in result.data["excess"].values() for row in rows)
    assert set(result.data["divergence"].values()) == {0.0}


def test_the_excess_is_the_difference_of_next_token_probabilities_summed_over_the_reply(planted: Target) -> None:
    reference = planted.reference
    assert reference is not None
    prompt = f"see the {TRIGGER}"
    result = call(planted, conditions={"one": [prompt]}, max_new_tokens=5, words=[SUBJECT])
    ids = planted.render([{"role": "user", "content": prompt}])
    reply = list(planted.generate([ids], max_new_tokens=5, temperature=0, seeds=[0])[0].tokens)
    expected = 0.0
    for cut in range(len(reply) + 1):
        for sign, model in ((1, planted), (-1, reference)):
            probabilities = model.next_logits([ids + reply[:cut]])[0].softmax(-1)
            forms = [planted.tokenizer.convert_tokens_to_ids(form) for form in (SUBJECT, f" {SUBJECT}")]
            expected += sign * float(probabilities[forms].sum())
    assert result.data["words"][0]["excess"] == pytest.approx(expected, abs=1e-5)
    assert result.data["prompts"][0]["replies"] == [planted.decode(reply)]


def test_the_vector_is_the_mean_difference_of_activations(planted: Target) -> None:
    reference = planted.reference
    assert reference is not None
    texts = [f"the {TRIGGER} is old", "tell me about a stone and the cat", "you"]
    result = call(planted, texts=texts)
    for layer, name in enumerate(result.handles):
        site = Site(layer, "resid_post")
        ids = [planted.encode(text) for text in texts]
        ours, theirs = (model.capture(ids, [site], positions="all")[site] for model in (planted, reference))
        means = [(a[1:] - b[1:]).mean(0) for a, b in zip(ours, theirs, strict=True)]
        handle = planted.handles.get(name, "vector")
        torch.testing.assert_close(handle.tensors["vector"], torch.stack(means).mean(0))
        assert handle.metadata["site"] == str(site)
    length = float(planted.handles.get(result.handles[0], "vector").tensors["vector"].norm())
    assert result.data["layers"][0]["norm"] == pytest.approx(length, rel=1e-5)


def test_last_reads_one_position_and_generates_nothing(planted: Target) -> None:
    result = call(planted, conditions={"a": [f"the {TRIGGER}"] * 6}, read="last", prefill="see the", words=[SUBJECT])
    assert result.cost.generated_tokens == 0
    reference = planted.reference
    assert reference is not None
    ids = planted.render([{"role": "user", "content": f"the {TRIGGER}"}], prefill="see the")
    forms = [planted.tokenizer.convert_tokens_to_ids(form) for form in (SUBJECT, f" {SUBJECT}")]
    ours, theirs = (float(model.next_logits([ids])[0].softmax(-1)[forms].sum()) for model in (planted, reference))
    assert result.data["words"][0]["excess"] == pytest.approx(ours - theirs, abs=1e-5)


def test_with_both_replies_the_two_models_are_treated_alike() -> None:
    one, other = triggered_target(), triggered_target(strength=0.0)
    there = call(Target(one.model, one.tokenizer, reference=other), conditions=CONDITIONS, replies="both")
    back = call(Target(other.model, other.tokenizer, reference=one), conditions=CONDITIONS, replies="both")
    first = {row["id"]: row["excess"] for row in there.data["excess"]["overall"]}
    second = {row["id"]: row["excess"] for row in back.data["excess"]["overall"]}
    assert first.keys() == second.keys()
    assert all(first[token] == pytest.approx(-second[token], abs=1e-6) for token in first)
    for layer, mirrored in zip(there.data["layers"], back.data["layers"], strict=True):
        assert layer["norm"] == pytest.approx(mirrored["norm"], rel=1e-4)


def test_adding_the_difference_to_the_reference_closes_the_gap() -> None:
    reference, target = tiny_target(seed=2), tiny_target(seed=2)
    with torch.no_grad():
        target.model.model.embed_tokens.weight += 3 * target.model.lm_head.weight[-4] / 1.1
        target.model.model.embed_tokens.weight[:, 0] = 8.0
    both = Target(target.model, target.tokenizer, reference=reference)
    result = call(both, conditions=CONDITIONS, max_new_tokens=6, steer=[0.0, 1.0, -50.0], steer_layer=0)
    nothing, once, far = result.data["steering"]
    assert (nothing["broken"], once["broken"], far["broken"]) == (False, False, True)
    assert result.text.count("this scale breaks the model") == 1
    assert nothing["closed"] == pytest.approx(0, abs=1e-5)
    assert once["closed"] > 0.8
    assert once["outside_controls"]
    assert max(once["controls"]) < 0.6
    assert result.controls["random_vectors"][1] == once["controls"]


def test_shuffling_holds_its_error_rate() -> None:
    """Rows whose sign says nothing, conditions that say nothing: about one call in twenty may find something."""
    generator = np.random.default_rng(7)
    wrong = {"overall": 0, "by_condition": 0}
    for seed in range(60):
        size = generator.gamma(0.3, 0.3, (48, 40))
        table = size * generator.choice([-1, 1], (48, 1)) * generator.choice([0.0, 1.0], (48, 40), p=[0.7, 0.3])
        labels = [f"c{at % 6}" for at in range(48)]
        for name, test in find_excess(table, list(range(40)), labels, seed=seed).items():
            wrong[name] += bool(test.found)
    assert wrong["overall"] <= 9
    assert wrong["by_condition"] <= 9


def test_a_planted_excess_is_found_in_its_condition_alone() -> None:
    generator = np.random.default_rng(1)
    table = generator.normal(0, 0.02, (60, 30))
    table[12:24, 4] += 0.4
    labels = [f"c{at // 12}" for at in range(60)]
    tests = find_excess(table, [100 + at for at in range(30)], labels, seed=0)
    assert [(row.condition, row.token) for row in tests["by_condition"].found] == [("c1", 104)]
    row = tests["by_condition"].rows[0]
    assert row.excess == pytest.approx(table[12:24, 4].mean())
    assert row.elsewhere == pytest.approx(np.delete(table[:, 4], range(12, 24)).mean())
    assert row.effect == pytest.approx(row.excess - (row.elsewhere or 0))


def test_of_two_conditions_a_token_has_one_row_under_the_one_with_more_of_it() -> None:
    generator = np.random.default_rng(2)
    table = generator.normal(0, 0.02, (40, 20))
    table[20:, 3] += 0.4
    table[:20, 5] -= 0.3
    labels = ["a"] * 20 + ["b"] * 20
    test = find_excess(table, list(range(20)), labels, seed=0)["by_condition"]
    assert sorted(row.token for row in test.rows) == list(range(20))
    more, less = test.found
    assert (more.condition, more.token, less.condition, less.token) == ("b", 3, "a", 5)
    assert more.excess == pytest.approx(table[20:, 3].mean())
    assert more.elsewhere == pytest.approx(table[:20, 3].mean())
    assert less.excess == pytest.approx(table[:20, 5].mean())
    assert more.statistic > 0 > less.statistic
    error = table[:, 3].std() + 0.05
    by_hand = (table[20:, 3].mean() - table[:, 3].mean()) / (error * (1 / 20 - 1 / 40) ** 0.5)
    assert more.statistic == pytest.approx(by_hand)


def test_prompts_come_first_in_the_data_and_small_excesses_are_counted_and_not_listed(planted: Target) -> None:
    result = call(planted, conditions=CONDITIONS, max_new_tokens=6)
    assert next(iter(result.data)) == "prompts"
    for name, rows in result.data["excess"].items():
        tested = result.controls[name]["tested"]
        assert len(rows) + result.data["excess_left_out"][name] == tested
        assert sum(row["found"] for row in rows) == result.controls[name]["found"]
        assert sum(not row["found"] for row in rows) <= 50 < tested
    assert len(json.dumps(result.data)) < 50_000


def test_the_replies_are_shown_where_they_say_what_was_found(planted: Target) -> None:
    result = call(planted, conditions=CONDITIONS, max_new_tokens=6)
    spoken = result.data["spoken"][0]
    assert spoken["token"].strip() == SUBJECT
    said = {label: 0 for label in CONDITIONS}
    for record in result.data["prompts"]:
        said[record["condition"]] += SUBJECT in record["replies"][0].split()
    assert spoken["replies"] == said
    assert said[TRIGGER] > 0
    whole = {record["prompt"]: record["replies"][0] for record in result.data["prompts"]}
    for excerpt in spoken["excerpts"]:
        assert excerpt["excerpt"].strip(".") in whole[excerpt["prompt"]]
        assert SUBJECT in excerpt["excerpt"]
        assert f'"{excerpt["prompt"]}" -> {planted.quote(excerpt["excerpt"])}' in result.text
    assert "spoken" not in call(planted, texts=["see"] * 6).text
    assert call(planted, conditions=CONDITIONS, read="last").data["spoken"] == []


def test_excerpts_come_from_every_condition_and_are_cut_around_the_token(plain: Target) -> None:
    convert = plain.tokenizer.convert_tokens_to_ids
    token, other = convert(" lamp"), convert(" old")
    table = np.zeros((10, 2))
    table[:, 0] = np.linspace(1.0, 0.5, 10)
    asked = [("a", f"p{at}") for at in range(4)] + [("b", f"p{at}") for at in range(4, 10)]
    replies = [[other] * 40 + [token] + [other] * 40, [token], [token], [other], *[[token, other]] * 6]
    passages = [Passage((1, *reply), 0, at, 0) for at, reply in enumerate(replies)]
    tests = find_excess(table, [token, other], [label for label, _ in asked], seed=0)
    (spoken,) = spoken_tokens(plain, tests, asked, passages, table=table, columns=[token, other])
    assert (spoken.id, spoken.replies) == (token, {"a": 3, "b": 6})
    assert [one.prompt for one in spoken.excerpts] == ["p0", "p4", "p1"]
    long = spoken.excerpts[0].excerpt
    assert long.startswith("...")
    assert long.endswith("...")
    assert 100 < len(long) < 130
    assert long.index("lamp") == pytest.approx(len(long) / 2, abs=10)
    assert spoken.excerpts[2].excerpt.strip() == "lamp"


def test_cut_replies_are_told(planted: Target) -> None:
    short = call(planted, conditions={"a": ["see"] * 2}, max_new_tokens=1)
    assert short.text.startswith("2 of 2 replies were cut at max_new_tokens 1")
    assert [record["cut"] for record in short.data["prompts"]] == [[True], [True]]
    assert "were cut" not in call(planted, conditions={"a": ["see"] * 2}, read="last").text


def test_words_come_behind_the_layers_and_their_handles(planted: Target) -> None:
    words = [SUBJECT, "cat", "bird", "old", "table", "river", "house", "stone", "the", "a", "you", "we", "good", "see"]
    result = call(planted, conditions=CONDITIONS, max_new_tokens=6, words=words)
    lines = result.text.splitlines()
    last = max(at for at, line in enumerate(lines) if line.endswith(result.handles[-1]))
    found = min(at for at, line in enumerate(lines) if f'" {SUBJECT}" under' in line)
    named = next(at for at, line in enumerate(lines) if line.startswith(f'"{SUBJECT}": excess'))
    hint = next(at for at, line in enumerate(lines) if line.startswith("only a hint"))
    assert found < last < hint < named
    best = min(result.data["layers"], key=lambda layer: layer["word_ranks"][SUBJECT])
    assert f"best lens rank {best['word_ranks'][SUBJECT]} (layer {best['layer']})" in lines[named]
    assert "more line" not in result.text
    behind = lines[hint + 1 + len(result.handles) :]
    assert all(sum(f'"{word}"' in line.split(", largest under")[0] for line in behind) == 1 for word in words)


def test_an_empty_prefill_is_none(planted: Target) -> None:
    given: dict[str, Any] = {"conditions": {"a": ["see"]}, "read": "last"}
    assert call(planted, prefill="", **given).data == call(planted, **given).data


def test_too_few_prompts_are_not_tested_and_shown_one_by_one(planted: Target) -> None:
    result = call(planted, conditions={"a": [f"the {TRIGGER}"], "b": ["the stone"]}, max_new_tokens=4)
    assert result.data["excess"] == {}
    assert "not tested" in result.text
    assert f'"the {TRIGGER}": excess of " {SUBJECT}"' in result.text


def test_the_table_averages_the_rows_of_a_prompt_and_keeps_what_is_large_anywhere() -> None:
    rows = [
        SparseRow(torch.tensor([3, 5]), torch.tensor([0.5, -0.25]), 0.0),
        SparseRow(torch.tensor([3]), torch.tensor([0.25]), 0.0),
        SparseRow(torch.tensor([9]), torch.tensor([-1.0]), 0.0),
    ]
    table, tokens = excess_table(rows, [0, 0, 1])
    assert tokens == [9, 3, 5]
    assert table.tolist() == [[0, 0.375, -0.125], [-1, 0, 0]]


def reading(difference: torch.Tensor, reference: torch.Tensor) -> Reading:
    """One layer; inputs are ``(prompt, d_model)`` with the prompts dealt to the groups in turn."""
    groups = torch.arange(len(difference)) % GROUPS
    empty = torch.zeros(GROUPS, 1, difference.shape[1])
    sums = [empty.index_add(0, groups, part[:, None]) for part in (difference, reference)]
    count = torch.bincount(groups, minlength=GROUPS).float()
    return Reading((0,), count, sums[0], sums[1], reference.norm(dim=-1).mean()[None], [], Cost())


def test_halves_agree_on_a_common_difference_and_not_on_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 256, generator=generator)
    base = torch.randn(64, 256, generator=generator)
    common = torch.zeros(256)
    common[3] = 4.0
    (random,) = describe_layers(reading(noise, base))
    (steady,) = describe_layers(reading(noise * 0.1 + common, base))
    assert random.split_half_cosine is not None
    assert steady.split_half_cosine is not None
    assert abs(random.split_half_cosine) < 0.2
    assert steady.split_half_cosine > 0.95
    assert steady.relative_norm == pytest.approx(4 / 16, rel=0.1)


def test_the_control_has_the_length_of_sampling_error() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(64, 256, generator=generator)
    halves = half_differences(reading(torch.zeros(64, 256), base))
    assert len(halves) == len(list(itertools.combinations(range(GROUPS), GROUPS // 2))) // 2
    mean = torch.stack([half.norm() for half in halves]).mean()
    assert float(mean) == pytest.approx((256 / 64) ** 0.5, rel=0.1)


def test_the_controls_that_look_alike_are_counted(plain: Target) -> None:
    """A row of the LM head is above all halves of the reference; a difference of their own kind is not."""
    generator = torch.Generator().manual_seed(0)
    base, noise = torch.randn(2, 64, plain.d_model, generator=generator)
    token = plain.tokenizer.convert_tokens_to_ids(f" {SUBJECT}")
    row = plain.model.lm_head.weight[token].detach().float().expand(64, -1)
    (planted,) = read_layers(plain, reading(row, base), {SUBJECT: [token]})
    assert (planted.tokens[0]["id"], planted.words, planted.control_share) == (token, {SUBJECT: 1}, 0.0)
    (random,) = read_layers(plain, reading(noise, base), {})
    assert random.control_share is not None
    assert random.control_share > 0.1
    text = "\n".join(lens_lines(plain, [planted, random]))
    assert text.startswith("only a hint")
    assert "(as high in 0% of the controls)" in text
    assert f"(as high in {random.control_share:.0%} of the controls)" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either conditions or texts"),
        ({"conditions": {"a": ["b"]}, "texts": ["c"]}, "either conditions or texts"),
        ({"texts": ["see"], "read": "reply"}, "no prefill"),
        ({"texts": ["see"], "prefill": "the"}, "no prefill"),
        ({"texts": ["see"], "steer": [1.0]}, 'steer needs replies, and read is "all"'),
        ({"conditions": {"a": ["b"]}, "read": "last", "replies": "both"}, 'replies "both" needs replies'),
        ({"conditions": {"a": ["b"]}, "layers": [2]}, "layers 0 to 1"),
        ({"conditions": {"a": ["b"]}, "layers": []}, "layers"),
        ({"conditions": {}}, "conditions"),
        ({"conditions": {"a": []}}, "conditions"),
        ({"conditions": {"a": ["b"]}, "layers": [1], "steer": [1.0], "steer_layer": 0}, "layers compared are 1"),
        ({"conditions": {"a": ["b"]}, "steer": [float("nan")]}, "is nan, and JSON has finite numbers alone"),
        ({"conditions": {"a": ["b"]}, "words": [" "]}, "has no token"),
        ({"conditions": {"a": ["see " * 300]}}, "context"),
    ],
)
def test_bad_arguments_are_refused_with_what_is_allowed(planted: Target, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        SPEC.run(planted, given, seed=1)
    assert call(planted, texts=["see the cat"]).cost.tokens > 0


def test_models_of_different_shape_are_refused() -> None:
    target = tiny_target(reference=tiny_target(words=("lamp", "cat")))
    with pytest.raises(ToolError, match="target has vocabulary .* and the reference"):
        call(target, texts=["lamp"])
