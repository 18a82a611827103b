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
    Words,
    check_samples,
    one_turn,
    sample_seed,
)
from marple.tools.contract import ToolResult, tool
from marple.tools.difference_text import KEPT_ROWS, Wording, fit_differences, kept_line, leading_ngrams, null_line
from marple.tools.differences import EVERYTHING, Differences, find_differences
from marple.tools.replies import Sampling, cost_of, sample_replies
from marple.tools.target.target import Completion, Target
from marple.tools.target.text import fit_lines
from marple.tools.word_counts import Cell, WordCount, count_ngram, count_word, counts_as_data, spread_line, word_lines
from marple.tools.word_examples import EXAMPLES_LIMIT, Said, example_lines

__all__ = ["compare"]

_Replies = Sequence[Sequence[Completion]]


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
    words: Words | None = None,
) -> ToolResult:
    """Find the words and phrases that the target uses more or less often than the reference on the same prompts.

    Every n-gram of one to three words is tested in each condition and over all, by weighted log-odds (Monroe et al.
    2008). A reply counts once however often it repeats a word. A row is found when its q is at most 0.05
    (false-discovery control) and its |z| exceeds what shuffling target and reference within each prompt reaches in 95 %
    of cases. The reference is also compared with itself: what is found there is chance. Words you ask for are counted
    in every condition, found or not.

    Args:
        conditions: label to user messages, such as prompts on one subject and prompts on others.
        system: system prompt of all prompts; none if left out.
        samples: replies per prompt and model.
        temperature: 0 is greedy, 1 the model's own distribution.
        top_p: mass of the nucleus; 1 is all tokens.
        max_new_tokens: longest reply.
        words: up to 20 words or phrases to count, whole words in any case.

    Returns:
        Per condition the n-grams found, with counts of replies, log-odds with 95 % interval, z and q; the strongest in
        all conditions, with replies that contain them: read there whether they are praised or warned against. For words
        asked for, counts, shares and the 95 % interval of the difference.

    Example:
        {"conditions": {"shopping": ["Which lamp should I buy?"], "other": ["Who are you?"]}, "words": ["lamp"]}
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
    cells = _cells(asked, passes["target"], passes["reference"])
    counted = {word: count_word(word, cells) for word in words or ()}
    leading = {ngram: count_ngram(ngram, cells) for ngram in leading_ngrams(effect)}
    said = {ngram: _said(target, asked, passes, rows) for ngram, rows in leading.items()}
    return ToolResult(
        text="\n".join(_texts(target, effect, null, counted, leading, said, note=controls.get("note", ""))),
        data={
            "rows": [row.to_dict(first="target", second="reference") for row in effect.rows[:KEPT_ROWS]],
            "rows_left_out": max(0, len(effect.rows) - KEPT_ROWS),
            "words": counts_as_data(counted, named="word", first="target", second="reference"),
            "leading": counts_as_data(leading, named="ngram", first="target", second="reference"),
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


def _cells(asked: Sequence[tuple[str, str]], ours: _Replies, theirs: _Replies) -> list[Cell]:
    labels = list(dict.fromkeys(label for label, _ in asked))
    cells = []
    for name in [EVERYTHING, *labels] if len(labels) > 1 else labels:
        rows = [at for at, (label, _) in enumerate(asked) if name in (EVERYTHING, label)]
        cells.append(
            Cell(
                name,
                [reply.text for at in rows for reply in ours[at]],
                [reply.text for at in rows for reply in theirs[at]],
                [asked[at][1] for at in rows],
            )
        )
    return cells


def _said(
    target: Target, asked: Sequence[tuple[str, str]], passes: Mapping[str, _Replies], counts: Sequence[WordCount]
) -> list[Said]:
    """The target's replies; the reference's, if only these contain what was counted."""
    who = "target" if any(row.first for row in counts) else "reference"
    return [
        Said(f"{who}, {target.quote(label)}", prompt, reply.text)
        for (label, prompt), samples in zip(asked, passes[who], strict=True)
        for reply in samples
    ]


def _texts(
    target: Target,
    effect: Differences,
    null: Differences,
    counted: dict[str, list[WordCount]],
    leading: dict[str, list[WordCount]],
    said: dict[str, list[Said]],
    *,
    note: str,
) -> Iterator[str]:
    quote = target.quote
    if counted:
        yield fit_lines(word_lines(counted, quote=quote, label=quote, first="target", second="reference"))
    lines = [
        f"{len(effect.found)} of {len(effect.rows)} n-grams tested differ between target and reference "
        f"(|z| >= {effect.z_threshold:.2f} and q <= 0.05); reference against itself: {len(null.found)} of "
        f"{len(null.rows)}, largest |z| {null.summary()['largest_z']:.2f} (an n-gram counts once per condition)",
        note,
        kept_line(effect),
        null_line(effect, null, quote=quote),
    ]
    if any(len(rows) > 1 for rows in leading.values()):
        lines.append("the strongest of these, in every condition (replies of target and reference that contain them):")
        lines += [spread_line(name, rows, quote=quote, label=quote) for name, rows in leading.items()]
    lines.append(fit_lines(example_lines(said, quote=quote), limit=EXAMPLES_LIMIT))
    wording = Wording(quote, "target", "reference")
    yield fit_differences([line for line in lines if line], effect, wording=wording)
