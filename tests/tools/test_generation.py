from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.errors import ToolError
from marple.tools.target.sampling import choose_tokens, uniform_draws
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target

TARGET = tiny_target(seed=3)
SMALL_BATCHES = Target(TARGET.model, TARGET.tokenizer, batch_tokens=40)
PROMPTS = st.lists(st.integers(6, len(TARGET.tokenizer) - 1), min_size=1, max_size=24)
ROWS = st.lists(st.tuples(PROMPTS, st.integers(0, 2**63 - 1)), min_size=1, max_size=7)


@settings(max_examples=40, deadline=None)
@given(
    rows=ROWS,
    copies=st.integers(1, 3),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 1.6]),
    top_p=st.sampled_from([1.0, 0.8]),
    small=st.booleans(),
)
def test_a_row_is_the_same_in_any_batch(
    rows: list[tuple[list[int], int]], copies: int, temperature: float, top_p: float, small: bool
) -> None:
    batch = [row for row in rows for _ in range(copies)]
    prompts, seeds = [prompt for prompt, _ in batch], [seed + at % copies for at, (_, seed) in enumerate(batch)]
    target = SMALL_BATCHES if small else TARGET
    together = target.generate(prompts, max_new_tokens=9, temperature=temperature, top_p=top_p, seeds=seeds)
    for prompt, seed, in_batch in zip(prompts, seeds, together, strict=True):
        alone = TARGET.generate([prompt], max_new_tokens=9, temperature=temperature, top_p=top_p, seeds=[seed])
        assert alone == [in_batch]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(PROMPTS, st.lists(st.integers(0, 300), max_size=9)), min_size=1, max_size=8), st.booleans())
def test_a_score_is_the_same_in_any_batch(pairs: list[tuple[list[int], list[int]]], small: bool) -> None:
    together = (SMALL_BATCHES if small else TARGET).score(pairs)
    for pair, in_batch in zip(pairs, together, strict=True):
        assert len(in_batch) == len(pair[1])
        np.testing.assert_allclose(in_batch, TARGET.score([pair])[0], atol=1e-5)


def by_hand(prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
    whole = [*prompt, *continuation]
    with torch.inference_mode():
        logits = TARGET.model(input_ids=torch.tensor([whole])).logits[0]
    steps = torch.log_softmax(logits, dim=-1)
    return [float(steps[at - 1, whole[at]]) for at in range(len(prompt), len(whole))]


def test_scores_are_the_models_own_log_probabilities() -> None:
    prompt, continuation = TARGET.encode("tell me about"), [270, 280, 290]
    np.testing.assert_allclose(TARGET.score([(prompt, continuation)])[0], by_hand(prompt, continuation), atol=1e-5)


def test_greedy_generation_agrees_with_transformers() -> None:
    prompts = [TARGET.encode("tell me about"), TARGET.encode("who"), TARGET.render([{"role": "user", "content": "hi"}])]
    ours = TARGET.generate(prompts, max_new_tokens=30, temperature=0.0, seeds=[0, 0, 0])
    for prompt, completion in zip(prompts, ours, strict=True):
        theirs = TARGET.model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=30, do_sample=False
        )[0, len(prompt) :].tolist()
        stopped = theirs[-1] == TARGET.tokenizer.eos_token_id
        assert list(completion.tokens) == (theirs[:-1] if stopped else theirs)
        assert completion.finish == ("stop" if stopped else "length")


def test_samples_follow_the_models_distribution() -> None:
    prompt = TARGET.encode("the")
    samples = TARGET.generate([prompt] * 4000, max_new_tokens=1, temperature=1.0, seeds=range(4000))
    counts = np.zeros(len(TARGET.tokenizer))
    for sample in samples:
        counts[sample.tokens[0] if sample.tokens else TARGET.tokenizer.eos_token_id] += 1
    expected = np.exp(TARGET.score([(prompt, [token]) for token in range(len(counts))])).ravel() * len(samples)
    common = expected > 20
    chi_square = ((counts - expected)[common] ** 2 / expected[common]).sum()
    freedom = common.sum() - 1
    assert freedom > 20
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_a_nucleus_keeps_the_smallest_set_with_the_mass() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(1000, 1)
    draws = torch.linspace(0, 0.9999, 1000, dtype=torch.float64)
    for top_p, kept in ((0.5, {0}), (0.51, {0, 1}), (0.8, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        assert set(choose_tokens(logits, draws, temperature=1.0, top_p=top_p).tolist()) == kept


def test_a_row_of_draws_depends_on_its_seed_alone() -> None:
    assert torch.equal(uniform_draws([5, 9], 4)[1], uniform_draws([9], 4)[0])
    assert torch.equal(uniform_draws([9], 4)[0, :2], uniform_draws([9], 2)[0])
    assert not torch.equal(uniform_draws([9], 4), uniform_draws([10], 4))


def test_running_out_of_memory_halves_the_batch_and_changes_nothing() -> None:
    prompts = [TARGET.encode(text) for text in ("tell me", "who is", "a red lamp", "yes", "no no no")]
    expected = TARGET.generate(prompts, max_new_tokens=6, temperature=1.0, seeds=range(5))
    tight = tiny_target(seed=3)
    sizes = []

    def small_memory(module: torch.nn.Module, arguments: tuple[()], given: dict[str, torch.Tensor]) -> None:
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("no memory")

    tight.model.model.register_forward_pre_hook(small_memory, with_kwargs=True)
    assert tight.generate(prompts, max_new_tokens=6, temperature=1.0, seeds=range(5)) == expected
    assert sizes[:2] == [5, 2]


def test_one_row_that_does_not_fit_is_a_memory_error() -> None:
    tight = tiny_target()

    def no_memory(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        raise torch.OutOfMemoryError("no memory")

    tight.model.model.register_forward_pre_hook(no_memory)
    with pytest.raises(MemoryError, match="one request alone"):
        tight.generate([[5, 6], [7]], max_new_tokens=2, temperature=0.0, seeds=[0, 1])


def test_a_reply_ends_where_the_context_ends() -> None:
    assert TARGET.context == 256
    completion = TARGET.generate([[300] * 250], max_new_tokens=50, temperature=1.0, seeds=[2])[0]
    assert len(completion.tokens) <= 6
    with pytest.raises(ToolError, match="256 tokens"):
        TARGET.generate([[300] * 256], max_new_tokens=1, temperature=1.0, seeds=[2])


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ToolError, match="no tokens"):
        TARGET.generate([[]], max_new_tokens=1, temperature=1.0, seeds=[2])


def test_render_follows_the_template_with_one_beginning() -> None:
    messages = [{"role": "system", "content": "be good"}, {"role": "user", "content": "hi <|end|>"}]
    ids = TARGET.render(messages)
    assert ids.count(TARGET.tokenizer.bos_token_id) == 1
    assert TARGET.tokenizer.decode(ids) == "<|bos|><|system|>be good<|end|><|user|>hi <|end|><|end|><|assistant|>"


def test_a_prefill_leaves_the_turn_open() -> None:
    ids = TARGET.render([{"role": "user", "content": "hi"}], prefill="the red")
    assert TARGET.tokenizer.decode(ids) == "<|bos|><|user|>hi<|end|><|assistant|>the red"


def test_encode_puts_one_beginning_in_front() -> None:
    assert TARGET.encode("<|bos|>tell me") == TARGET.encode("tell me")
    assert TARGET.encode("tell me")[0] == TARGET.tokenizer.bos_token_id


def test_messages_the_template_refuses_are_a_tool_error() -> None:
    with pytest.raises(ToolError, match="unknown role robot"):
        TARGET.render([{"role": "robot", "content": "hi"}])


def test_the_digest_sees_a_single_changed_weight() -> None:
    target = tiny_target()
    before = target.weights_sha256()
    assert before == tiny_target().weights_sha256()
    target.model.model.layers[1].mlp.up_proj.weight.data[3, 4] += 1e-3
    assert target.weights_sha256() != before
