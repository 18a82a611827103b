import json
import math
from typing import Any

import pytest
import torch

from marple.errors import ToolError
from marple.tools.contract import ToolResult, tool_spec
from marple.tools.experiments.logit_lens import logit_lens
from marple.tools.lenses import (
    LensReading,
    followed_lines,
    followed_words,
    lens_of_directions,
    ranks,
    read_lens,
    word_tokens,
)
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target
from tests.mechanisms.conftest import SUBJECT, TRIGGER

SPEC = tool_spec(logit_lens)
TEXT = "tell me about the red lamp and a cat"


def call(target: Target, **given: Any) -> ToolResult:
    result = SPEC.run(target, given, seed=1)
    json.dumps([result.data, result.controls], allow_nan=False)
    assert 0 < len(result.text) <= 4000
    assert result.artifacts[0].data.startswith(b"\x89PNG")
    return result


def test_every_layer_equals_the_lens_of_the_hidden_states_by_transformers(plain: Target) -> None:
    ids = plain.encode(TEXT)
    with torch.inference_mode():
        output = plain.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        early = plain.model.lm_head(plain.model.model.norm(output.hidden_states[1][0]))
    expected = torch.stack([early, output.logits[0]]).double().log_softmax(-1)
    words = [[20, 300], [310]]
    reading = read_lens(plain, ids, layers=[0, 1], positions=range(len(ids)), words=words, top=3)
    best = expected.topk(3)
    assert torch.equal(reading.tokens, best.indices)
    torch.testing.assert_close(reading.probabilities, best.values.exp(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(reading.entropy, -(expected.exp() * expected).sum(-1), atol=1e-4, rtol=1e-4)
    divergence = torch.nn.functional.kl_div(expected, expected[1].expand(2, -1, -1), log_target=True, reduction="none")
    torch.testing.assert_close(reading.kl, divergence.sum(-1), atol=1e-4, rtol=1e-4)
    assert float(reading.kl[1].abs().max()) == 0
    for at, tokens in enumerate(words):
        placed = torch.stack([(expected > expected[..., one : one + 1]).sum(-1) + 1 for one in tokens]).min(0).values
        assert torch.equal(reading.word_ranks[..., at], placed)
        said = expected[..., tokens].exp().sum(-1).log()
        torch.testing.assert_close(reading.word_logprobs[..., at], said, atol=1e-4, rtol=1e-4)


def test_the_last_layer_is_the_models_own_prediction(plain: Target) -> None:
    messages = [{"role": "user", "content": TEXT}]
    result = call(plain, messages=messages, prefill="see the", positions=[-1])
    ids = plain.render(messages, prefill="see the")
    probabilities = plain.next_logits([ids])[0].softmax(-1)
    last = result.data["cells"][-1]
    assert last["tokens"][0]["id"] == int(probabilities.argmax())
    assert last["tokens"][0]["probability"] == pytest.approx(float(probabilities.max()), abs=1e-5)
    assert last["position"] == len(ids) - 1


def test_a_planted_word_is_seen_with_its_layer_and_below_unrelated_prompts(planted: Target) -> None:
    unrelated = ["see the cat", "a good table", "the old house"]
    word = call(planted, text=f"see the {TRIGGER}", words=[SUBJECT], unrelated=unrelated).data["words"][0]
    last = [row[-1] for row in word["ranks"]]
    assert last[0] == 1
    assert word["reference_ranks"][0][-1] > 1
    assert word["below_all_unrelated"][0][-1]
    assert word["above_all_unrelated"][0][-1]
    assert word["above_reference"][0][-1]
    assert [len(one) for one in word["unrelated_ranks"]] == [3, 3]
    between = 0
    for mine, others, below in zip(word["ranks"], word["unrelated_ranks"], word["below_all_unrelated"], strict=True):
        assert below == [rank < min(others) for rank in mine]
        between += sum(min(others) <= rank < max(others) for rank in mine)
    assert between > 0
    forms = list(word_tokens(planted, [SUBJECT]).values())
    by_hand = read_lens(planted, planted.encode("see the cat"), layers=[0], positions=[3], words=forms)
    assert int(by_hand.word_ranks[0, 0, 0]) in word["unrelated_ranks"][0]


def test_a_word_that_comes_first_everywhere_is_judged_by_its_probability() -> None:
    """Ranks saturate: here the word is first behind every prompt, but twice as likely behind this one."""
    layers, nowhere = (0,), torch.zeros(1, 1, 1)

    def read(probability: float) -> LensReading:
        logs = torch.tensor([[[probability]]]).log()
        return LensReading(
            layers, (0,), nowhere, nowhere, nowhere, nowhere, torch.ones(1, 1, 1, dtype=torch.long), logs
        )

    (above,) = followed_words(["x"], read(0.9), read(0.4), [read(0.2), read(0.5)])
    assert not above["below_all_unrelated"][0][0]
    assert (above["above_all_unrelated"], above["above_reference"]) == ([[True]], [[True]])
    assert above["unrelated_logprobs"] == [pytest.approx([math.log(0.2), math.log(0.5)], abs=1e-4)]
    target = tiny_target()
    line = list(followed_lines(target, [above]))[-1]
    assert line == "  layer 0: 0.9 (1), reference 0.4 (1), unrelated 0.2 to 0.5 (1 to 1): likelier"
    for reference, unrelated in ((0.85, 0.5), (0.4, 0.85)):
        (alike,) = followed_words(["x"], read(0.9), read(reference), [read(0.1), read(unrelated)])
        assert "likelier" not in list(followed_lines(target, [alike]))[-1]


def test_many_words_have_the_last_layer_and_their_best_alone(planted: Target) -> None:
    words = [SUBJECT, "cat", "bird", "old", "table", "house", "stone", "road", "the", "you", "we", "good", "see"]
    result = call(planted, text=f"see the {TRIGGER}", words=words)
    assert "more line" not in result.text
    lines = result.text.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith(f'"{SUBJECT}", where it leads most'))
    row = result.data["words"][0]
    lead = [row["logprobs"][layer][-1] - row["unrelated_logprobs"][layer][-1] for layer in (0, 1)]
    shown = [line for line in lines[at + 1 : at + 3] if line.startswith("  layer")]
    assert len(shown) == (1 if lead[1] >= lead[0] else 2)


def test_an_empty_prefill_is_none(plain: Target) -> None:
    given: dict[str, Any] = {"messages": [{"role": "user", "content": TEXT}], "words": ["lamp"]}
    assert call(plain, prefill="", **given).data == call(plain, **given).data


def test_a_frequent_word_is_not_below_unrelated_prompts() -> None:
    target = tiny_target(favour={"lamp": 6.0})
    word = call(target, text="see the bird", words=["lamp"], unrelated=["the cat is", "a table"]).data["words"][0]
    assert word["ranks"][-1][-1] == 1
    assert not any(any(row) for row in word["below_all_unrelated"])
    assert not word["above_all_unrelated"][-1][-1]


def test_positions_and_layers_are_those_asked_for(plain: Target) -> None:
    ids = plain.encode(TEXT)
    result = call(plain, text=TEXT, positions=[-1, 2, -1], layers=[-1])
    assert [one["position"] for one in result.data["positions"]] == [2, len(ids) - 1]
    assert {cell["layer"] for cell in result.data["cells"]} == {1}
    assert result.cost.prompt_tokens == len(ids)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either text or messages"),
        ({"text": "a", "prefill": "b"}, "needs messages"),
        ({"text": TEXT, "positions": [99]}, "outside of the prompt, which has 1"),
        ({"text": TEXT, "layers": [2]}, "layers 0 to 1"),
        ({"text": TEXT, "words": [" "]}, "has no token"),
        ({"text": "see " * 300}, "context holds 256"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "must have role"),
    ],
)
def test_bad_arguments_are_refused(plain: Target, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        SPEC.run(plain, given, seed=1)


def test_a_direction_is_read_without_the_bias_of_the_norm(plain: Target) -> None:
    rows = plain.model.lm_head.weight[[300, 310]].float()
    scores = lens_of_directions(plain, rows)
    assert scores.argmax(-1).tolist() == [300, 310]
    torch.testing.assert_close(scores.std(-1), torch.ones(2))
    assert ranks(scores, [300]).tolist()[0] == 1


def test_a_word_is_each_of_its_shortest_beginnings(plain: Target) -> None:
    convert = plain.tokenizer.convert_tokens_to_ids
    assert word_tokens(plain, ["lamp"])["lamp"] == (convert("lamp"), convert(" lamp"))
