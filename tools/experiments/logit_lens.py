"""What each layer would say if it were the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field

from marple.tools.arguments import Message, Prompts, Text, Words, one_turn
from marple.tools.contract import Artifact, Cost, ToolResult, tool
from marple.tools.engine.sites import Site
from marple.tools.lenses import LensReading, followed_lines, followed_words, read_lens, token_text, word_tokens
from marple.tools.plots import figure, plot_artifact, visible
from marple.tools.prompt_tokens import Beginning, encode_prompt, fits_context, resolve_layers, resolve_positions
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["logit_lens"]

_DEFAULT_POSITIONS = 12
_SHOWN_TOKENS = 5
_PLOTTED_LAYERS = 40
_UNRELATED = (
    "The weather was cold this morning.",
    "My brother is learning to play the piano.",
    "How do I boil an egg?",
    "The train to the coast leaves at nine.",
    "She put the book back on the shelf.",
    "What is the difference between a frog and a toad?",
    "They painted the kitchen yellow last year.",
    "Please explain how a bridge is built.",
)


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target()
    ids = target.encode("tell me about the lamp")
    result = logit_lens(target, seed=0, text="tell me about the lamp", positions=[-1], words=["lamp"])
    last = result.data["cells"][-1]
    expected = target.next_logits([ids])[0].log_softmax(-1)
    assert last["tokens"][0]["id"] == int(expected.argmax()), "the last layer's lens is not the model's own prediction"
    assert abs(last["tokens"][0]["probability"] - float(expected.max().exp())) < 1e-4
    assert last["kl_to_final"] < 1e-6
    # A direction planted into the first layer's output for every token must be read there.
    planted = tiny_target()
    lamp = word_tokens(planted, ["lamp"])["lamp"][-1]
    with torch.no_grad():
        planted.model.model.embed_tokens.weight += 40 * planted.model.lm_head.weight[lamp]
    seen = logit_lens(planted, seed=0, text="tell me about the lamp", positions=[-1], words=["lamp"]).data["words"][0]
    assert seen["ranks"][0][0] == 1, f"the planted direction has rank {seen['ranks'][0][0]} at layer 0"


@tool(rung=3, parallel=True, family="lens", self_test=_self_test)
def logit_lens(
    target: Target,
    *,
    seed: int,
    text: Text | None = None,
    messages: Annotated[list[Message], Field(min_length=1)] | None = None,
    prefill: Beginning | None = None,
    positions: Annotated[list[int], Field(min_length=1, max_length=200)] | None = None,
    layers: Annotated[list[int], Field(min_length=1)] | None = None,
    words: Words | None = None,
    unrelated: Prompts | None = None,
    top: Annotated[int, Field(ge=1, le=50)] = 5,
) -> ToolResult:
    """Read every layer's residual stream through final norm and LM head (logit lens, nostalgebraist 2020).

    Shows at each layer which token would come next, how sure the layer is, how far it is from the model's final answer,
    and the rank of words you ask for: a word that is likely in the middle and not said in the end is thought of and
    held back. Early layers are not in the head's basis, so what the lens reads there is often noise. The last layer is
    the model's own next-token distribution. If a reference is loaded it reads the same tokens.

    Baseline: the same words at the last position of unrelated prompts, behind the same prefill. A frequent token is
    likely everywhere; only a log-probability above that of all unrelated prompts, and above the reference's, by more
    than 0.2 nats says something about this prompt. Beside eight prompts a word is above all by chance in one case of
    nine. Ranks saturate: of two prompts that both put a word first, one may give it 0.2 and the other 1.

    Args:
        text: raw text.
        messages: a conversation instead, a user message last.
        prefill: how the reply begins, to read inside it; "" is none.
        positions: token positions, from 0, negative from the end; the last 12 by default.
        layers: from 0; all by default.
        words: up to 20 words to follow; a word's first token stands for it.
        unrelated: prompts for the baseline, instead of eight everyday sentences.
        top: tokens kept at each layer and position.

    Returns:
        For each layer and position the top tokens with probabilities, entropy and divergence to the final answer in
        nats; for each word ranks and log-probabilities by layer and position, the reference's and the baseline's.

    Example:
        {"messages": [{"role": "user", "content": "Which lamp should I buy?"}], "prefill": "I recommend the",
        "words": ["red"], "positions": [-1]}
    """
    ids = encode_prompt(target, text=text, messages=messages, prefill=prefill)
    at = resolve_positions(positions or range(-min(_DEFAULT_POSITIONS, len(ids)), 0), len(ids))
    chosen = resolve_layers(target, layers)
    known = word_tokens(target, words or ())
    forms = list(known.values())
    reading = read_lens(target, ids, layers=chosen, positions=at, words=forms, top=top)
    cost = Cost(prompt_tokens=len(ids))
    beside = None
    if target.reference is not None and target.reference.layers == target.layers:
        beside = read_lens(target.reference, ids, layers=chosen, positions=at, words=forms, top=top)
        cost += Cost(prompt_tokens=len(ids))
    baseline, spent = _baseline(
        target, unrelated or list(_UNRELATED), chosen, forms, chat=messages is not None, prefill=prefill
    )
    cost += spent
    followed = followed_words(list(known), reading, beside, baseline)
    data = {
        "positions": [{"position": one, "token": token_text(target, ids[one])} for one in at],
        "cells": _cells(target, reading, beside),
        "words": followed,
    }
    return ToolResult(
        text=fit_lines(_lines(target, ids, reading, beside, followed)),
        data=data,
        artifacts=(_plot(target, ids, reading),),
        controls={
            "unrelated_prompts": len(unrelated or _UNRELATED) if forms else 0,
            "words": [
                {key: row[key] for key in ("word", "unrelated_logprobs", "above_all_unrelated")} for row in followed
            ],
            "reference": beside is not None,
        },
        cost=cost,
    )


def _baseline(
    target: Target,
    unrelated: Sequence[str],
    layers: Sequence[int],
    forms: Sequence[Sequence[int]],
    *,
    chat: bool,
    prefill: str | None,
) -> tuple[list[LensReading], Cost]:
    """The words at the last token of each unrelated prompt, in the same format as the prompt."""
    readings, cost = [], Cost()
    for prompt in unrelated if forms else ():
        ids = fits_context(target, target.render(one_turn(prompt), prefill=prefill) if chat else target.encode(prompt))
        readings.append(read_lens(target, ids, layers=layers, positions=[len(ids) - 1], words=forms, top=1))
        cost += Cost(prompt_tokens=len(ids))
    return readings, cost


def _cells(target: Target, reading: LensReading, beside: LensReading | None) -> list[dict[str, Any]]:
    cells = []
    for row, layer in enumerate(reading.layers):
        for column, position in enumerate(reading.positions):
            cell = {
                "layer": layer,
                "site": str(Site(layer, "resid_post")),
                "position": position,
                "tokens": _tokens(target, reading, row, column),
                "entropy": round(float(reading.entropy[row, column]), 4),
                "kl_to_final": round(max(0.0, float(reading.kl[row, column])), 6),
            }
            if beside is not None:
                cell["reference_tokens"] = _tokens(target, beside, row, column)
            cells.append(cell)
    return cells


def _tokens(target: Target, reading: LensReading, row: int, column: int) -> list[dict[str, Any]]:
    both = zip(reading.tokens[row, column].tolist(), reading.probabilities[row, column].tolist(), strict=True)
    return [{"token": token_text(target, token), "id": token, "probability": round(p, 6)} for token, p in both]


def _lines(
    target: Target,
    ids: Sequence[int],
    reading: LensReading,
    beside: LensReading | None,
    followed: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    yield from followed_lines(target, followed)
    last = len(reading.positions) - 1
    where = f"position {reading.positions[last]} ({target.quote(token_text(target, ids[reading.positions[last]]))})"
    yield f"at {where}, layer by layer: top tokens with probability; entropy and divergence to the final answer in nats"
    for row, layer in enumerate(reading.layers):
        line = f"  layer {layer}: {_shown(target, reading, row, last)}; entropy {float(reading.entropy[row, last]):.2f}"
        line += f", divergence {float(reading.kl[row, last]):.2f}"
        yield line + (f"; reference {_shown(target, beside, row, last, count=2)}" if beside is not None else "")
    if last:
        yield f"the other {last} positions are in the plot and in the data, with all top tokens"


def _shown(target: Target, reading: LensReading, row: int, column: int, *, count: int = _SHOWN_TOKENS) -> str:
    tokens = _tokens(target, reading, row, column)[:count]
    return " ".join(f"{target.quote(one['token'], limit=20)} {one['probability']:.2f}" for one in tokens)


def _plot(target: Target, ids: Sequence[int], reading: LensReading) -> Artifact:
    """The lens grid: most probable token of each layer (bottom up) and position, coloured by its probability."""
    columns = range(len(reading.positions))[-_DEFAULT_POSITIONS:]
    step = -(-len(reading.layers) // _PLOTTED_LAYERS)
    rows = sorted({*range(0, len(reading.layers), step), len(reading.layers) - 1})
    best = reading.probabilities[rows][:, list(columns), 0]
    with figure(2.2 + 0.95 * len(columns), 1.4 + 0.34 * len(rows)) as (made, (axes,)):
        image = axes.imshow(best.numpy(), aspect="auto", origin="lower", cmap="Blues", vmin=0, vmax=1)
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                name = visible(token_text(target, int(reading.tokens[row, column, 0])), limit=11)
                axes.text(
                    x, y, name, ha="center", va="center", fontsize=7, color="white" if best[y, x] > 0.6 else "black"
                )
        names = [visible(token_text(target, ids[reading.positions[column]]), limit=11) for column in columns]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(rows)), [str(reading.layers[row]) for row in rows])
        axes.set(xlabel="token read", ylabel="layer (resid_post)", title="Logit lens: most probable next token")
        axes.grid(visible=False)
        made.colorbar(image, label="probability")
        return plot_artifact("logit_lens", made)
