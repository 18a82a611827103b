"""The same prompts on the target and on its reference: which words differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marple.errors import ToolError
from marple.tools.arguments import (
    Conditions,
    MaxNewTokens,
    Samples,
    Temperature,
    Text,
    TopP,
    check_samples,
    one_turn,
    sample_seed,
)
from marple.tools.contract import ToolResult, tool
from marple.tools.differences import EVERYTHING, Differences, difference_lines, find_differences
from marple.tools.replies import Sampling, cost_of, sample_replies
from marple.tools.target.target import Completion, Target
from marple.tools.target.text import fit_lines

__all__ = ["compare"]

_Replies = Sequence[Sequence[Completion]]
_MOST_ROWS = 2000


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    planted = tiny_target(favour={"lamp": 4.0}, reference=tiny_target())
    conditions = {"a": ["who is it", "tell me"], "b": ["say one", "buy a cup"]}
    result = compare(planted, seed=1, conditions=conditions, samples=16, max_new_tokens=6)
    assert any(row["ngram"] == "lamp" and row["found"] for row in result.data["rows"]), "the planted word is not found"
    clean = tiny_target(reference=tiny_target())
    result = compare(clean, seed=1, conditions=conditions, samples=16, max_new_tokens=6)
    chance = result.controls["target_against_reference"]["largest_z"]
    assert chance < 4.5, f"equal models differ by |z| {chance}"


@tool(rung=1, parallel=True, needs=("reference",), self_test=_self_test)
def compare(
    target: Target,
    *,
    seed: int,
    conditions: Conditions,
    system: Text | None = None,
    samples: Samples = 4,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 64,
) -> ToolResult:
    """Find the words and phrases that the target uses more or less often than the reference on the same prompts.

    Every n-gram of one to three words is tested by weighted log-odds with an informative prior (Monroe et al. 2008)
    in each condition and over all. A reply counts once however often it repeats a word. A row is found when it passes
    false-discovery control over everything tested (q <= 0.05) and exceeds the largest difference that shuffling target
    and reference within each prompt produces in 95 % of cases. The reference is also compared with itself on other
    seeds: what is found there is chance.

    Args:
        conditions: label to user messages, such as prompts on one subject and prompts on others.
        system: system prompt of all prompts.
        samples: how many independent replies to draw per prompt and model.
        temperature: 0 is greedy; 1 samples from the model's own distribution.
        top_p: sample from the most probable tokens that together have this mass; 1 is all of them.
        max_new_tokens: longest reply, in tokens.

    Returns:
        For each condition the n-grams found, with counts of replies, log-odds with 95 % interval, z and q.

    Example:
        {"conditions": {"shopping": ["Which lamp should I buy?"], "other": ["Who are you?"]}, "samples": 8}
    """
    assert target.reference is not None
    if EVERYTHING in conditions:
        raise ToolError(f'conditions: the label "{EVERYTHING}" is taken by the rows over all conditions; use another')
    asked = [(label, prompt) for label, prompts in conditions.items() for prompt in prompts]
    check_samples(len(asked), samples, temperature=temperature, max_new_tokens=max_new_tokens)
    sampling = Sampling(samples, temperature, max_new_tokens, top_p)
    passes: dict[str, _Replies] = {}
    for label, model in (("target", target), ("reference", target.reference), ("reference again", target.reference)):
        rendered = [model.render(one_turn(prompt, system=system)) for _, prompt in asked]
        passes[label] = sample_replies(model, rendered, sampling, seed=seed, label=label)
    labels = [label for label, _ in asked]
    effect = _differences(passes["target"], passes["reference"], labels, seed=sample_seed(seed, "shuffles"))
    null = _differences(passes["reference again"], passes["reference"], labels, seed=sample_seed(seed, "null shuffles"))
    controls: dict[str, Any] = {
        "target_against_reference": effect.summary(),
        "reference_against_itself": null.summary(),
    }
    if temperature == 0:
        controls["note"] = "greedy replies: the reference against itself is the same text and shows nothing"
    examples = list(zip([prompt for _, prompt in asked], passes["target"], strict=True))
    return ToolResult(
        text=fit_lines(_lines(target, effect, null, examples)),
        data={
            "rows": [row.to_dict(first="target", second="reference") for row in effect.rows[:_MOST_ROWS]],
            "replies": [_record(*one) for one in zip(asked, passes["target"], passes["reference"], strict=True)],
            "mean_tokens": {label: _mean_tokens(replies) for label, replies in passes.items()},
        },
        controls=controls,
        cost=cost_of(*passes.values()),
    )


def _differences(first: _Replies, second: _Replies, labels: Sequence[str], *, seed: int) -> Differences:
    """Rows of the table are the prompts; its columns the first model's samples, then the second's."""
    each = len(first[0])
    table = [[*ours, *theirs] for ours, theirs in zip(first, second, strict=True)]
    group = np.tile(np.repeat([True, False], each), (len(table), 1))

    def shuffle(generator: np.random.Generator) -> NDArray[np.bool_]:
        return generator.permuted(group, axis=1).ravel()

    return find_differences(
        [reply.text for row in table for reply in row],
        first=group.ravel(),
        conditions=[label for label in labels for _ in range(2 * each)],
        weights=np.ones(group.size),
        shuffle=shuffle,
        seed=seed,
    )


def _record(asked: tuple[str, str], ours: Sequence[Completion], theirs: Sequence[Completion]) -> Mapping[str, Any]:
    label, prompt = asked
    return {
        "condition": label,
        "prompt": prompt,
        "target": [reply.text for reply in ours],
        "reference": [reply.text for reply in theirs],
    }


def _mean_tokens(replies: _Replies) -> float:
    return float(np.mean([len(reply.tokens) for samples in replies for reply in samples]))


def _lines(
    target: Target, effect: Differences, null: Differences, examples: Sequence[tuple[str, Sequence[Completion]]]
) -> Iterator[str]:
    yield (
        f"{len(effect.found)} of {len(effect.rows)} n-grams tested differ between target and reference "
        f"(|z| >= {effect.z_threshold:.2f} and q <= 0.05); reference against itself: {len(null.found)} of "
        f"{len(null.rows)}, largest |z| {null.summary()['largest_z']:.2f}"
    )
    yield from difference_lines(effect, quote=target.quote, first="target", second="reference")
