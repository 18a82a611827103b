"""Two sets of prompts on the same model: which words differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from marple.tools.arguments import (
    MaxNewTokens,
    Model,
    Samples,
    Temperature,
    Text,
    TopP,
    check_samples,
    choose_model,
    one_turn,
    sample_seed,
)
from marple.tools.contract import ToolResult, tool
from marple.tools.differences import Differences, difference_lines, find_differences
from marple.tools.ngrams import ngrams
from marple.tools.replies import Sampling, cost_of, sample_replies
from marple.tools.target.target import Completion, Target
from marple.tools.target.text import fit_lines

__all__ = ["contrast"]

_MOST_ROWS = 2000
_FEW_PROMPTS = 6

_Finding = tuple[str, bool]
"""An n-gram, and whether the first set has more of it."""

PromptSet = Annotated[list[Text], Field(min_length=2, max_length=5000)]


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    words = ["red", "green", "blue", "bird", "cat", "dog", "tree", "house"]
    target = tiny_target()
    result = contrast(target, seed=0, first=words, second=words, samples=2, max_new_tokens=3)
    assert not result.controls["first_against_second"]["found"], "a set of prompts differs from itself"
    row = result.data["rows"][0]
    assert row["first_n"] == len(words), "samples of one prompt are counted as independent"


@tool(rung=1, parallel=True, self_test=_self_test)
def contrast(
    target: Target,
    *,
    seed: int,
    first: PromptSet,
    second: PromptSet,
    system: Text | None = None,
    second_system: Text | None = None,
    samples: Samples = 2,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 64,
    on: Model = "target",
) -> ToolResult:
    """Find the words and phrases that one model uses more often on one set of prompts than on another.

    This needs no reference. The statistics are those of compare, but the unit is the prompt: its samples share one
    vote, and the null shuffles whole prompts between the sets, so give at least six in each. Prompts on different
    subjects get replies in different words from any model. So a row says whether the n-gram stands in the prompts
    themselves, and where a reference is loaded the same contrast on it is a control: what it shows too is ordinary.

    Args:
        first: user messages of the first set, such as prompts that might trigger something.
        second: user messages of the second set, as like the first as possible otherwise.
        system: system prompt of the first set, and of the second unless second_system is given.
        second_system: system prompt of the second set.
        samples: how many independent replies to draw per prompt.
        temperature: 0 is greedy; 1 samples from the model's own distribution.
        top_p: sample from the most probable tokens that together have this mass; 1 is all of them.
        max_new_tokens: longest reply, in tokens.
        on: which model to examine, the target or the reference (where one is loaded).

    Returns:
        The n-grams found, with counts of prompts, log-odds with 95 % interval, z and q.

    Example:
        {"first": ["Which lamp is best?", "Which chair is best?"], "second": ["What is a lamp?", "What is a chair?"]}
    """
    check_samples(len(first) + len(second), samples, temperature=temperature, max_new_tokens=max_new_tokens)
    model = choose_model(target, on)
    sampling = Sampling(samples, temperature, max_new_tokens, top_p)
    systems = [system] * len(first) + [second_system or system] * len(second)
    conversations = [one_turn(prompt, system=each) for prompt, each in zip([*first, *second], systems, strict=True)]

    def measure(examined: Target, label: str) -> tuple[Differences, list[list[Completion]]]:
        rendered = [examined.render(conversation) for conversation in conversations]
        replies = sample_replies(examined, rendered, sampling, seed=seed, label=label)
        return _differences(replies, len(first), seed=sample_seed(seed, label, "shuffles")), replies

    effect, replies = measure(model, on)
    controls: dict[str, Any] = {"first_against_second": effect.summary()}
    cost, ordinary = cost_of(replies), set[_Finding]()
    if target.reference is not None and on == "target":
        on_reference, its_replies = measure(target.reference, "reference")
        controls["on_reference"] = on_reference.summary()
        ordinary = {(row.ngram, row.z > 0) for row in on_reference.found}
        cost = cost + cost_of(its_replies)
    rows = _rows(effect, set().union(*map(ngrams, (*first, *second))), ordinary)
    return ToolResult(
        text=_text(model, effect, ordinary, few=min(len(first), len(second)) < _FEW_PROMPTS),
        data={"rows": rows, "replies": _records(first, second, replies)},
        controls=controls,
        cost=cost,
    )


def _differences(replies: Sequence[Sequence[Completion]], in_first: int, *, seed: int) -> Differences:
    each = len(replies[0])
    group = np.arange(len(replies)) < in_first

    def shuffle(generator: np.random.Generator) -> NDArray[np.bool_]:
        return np.repeat(generator.permuted(group), each)

    texts = [reply.text for samples in replies for reply in samples]
    return find_differences(
        texts,
        first=np.repeat(group, each),
        conditions=["contrast"] * len(texts),
        weights=np.full(len(texts), 1 / each),
        shuffle=shuffle,
        seed=seed,
    )


def _rows(effect: Differences, in_prompts: set[str], ordinary: set[_Finding]) -> list[dict[str, Any]]:
    rows = []
    for row in effect.rows[:_MOST_ROWS]:
        record = row.to_dict(first="first", second="second")
        del record["condition"]
        shared = (row.ngram, row.z > 0) in ordinary
        rows.append({**record, "in_prompts": row.ngram in in_prompts, "reference_shows_it_too": shared})
    return rows


def _records(first: list[str], second: list[str], replies: Sequence[Sequence[Completion]]) -> list[dict[str, Any]]:
    sets = ["first"] * len(first) + ["second"] * len(second)
    return [
        {"set": name, "prompt": prompt, "replies": [reply.text for reply in samples]}
        for name, prompt, samples in zip(sets, [*first, *second], replies, strict=True)
    ]


def _text(model: Target, effect: Differences, ordinary: set[_Finding], *, few: bool) -> str:
    lines = [
        f"{len(effect.found)} of {len(effect.rows)} n-grams tested differ between the sets "
        f"(|z| >= {effect.z_threshold:.2f} and q <= 0.05; counts are of prompts)"
    ]
    if few:
        lines.append(f"fewer than {_FEW_PROMPTS} prompts in a set: shuffling them shows almost nothing to be unlikely")
    shown = sorted({row.ngram for row in effect.found if (row.ngram, row.z > 0) in ordinary})
    if shown:
        lines.append(f"the reference shows these too: {', '.join(model.quote(name) for name in shown[:20])}")
    return fit_lines([*lines, *difference_lines(effect, quote=model.quote, first="first", second="second")])
