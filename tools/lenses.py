"""Read the residual stream through the final norm and the LM head (logit lens, nostalgebraist 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.engine.sites import Site
from marple.tools.target.target import Target

__all__ = [
    "LensReading",
    "followed_lines",
    "followed_words",
    "lens_of_directions",
    "ranks",
    "read_lens",
    "show_tokens",
    "token_text",
    "top_tokens",
    "word_tokens",
]

_LEAST_LEAD = 0.2
"""Nats by which a word must lead to count as likelier."""
_WHOLE_WORDS_LINES = 24


def lens_of_directions(target: Target, directions: Tensor) -> Tensor:
    """How directions ``(n, d_model)`` move the logits, ``(n, vocab)``, in standard deviations over the vocabulary.

    A direction is not a state: what the lens makes of no state at all is taken off, so that a norm's bias is not read
    as the direction's content.
    """
    logits = target.lens(torch.cat([directions, torch.zeros_like(directions[:1])])).float().cpu()
    moved = logits[:-1] - logits[-1]
    centred: Tensor = moved - moved.mean(-1, keepdim=True)
    return centred / centred.std(-1, keepdim=True).clamp(min=1e-12)


def ranks(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    """Best rank (1 is the highest score) of any of the tokens, for scores ``(..., vocab)``; shape ``(...)``."""
    each = [(scores > scores[..., token : token + 1]).sum(-1) + 1 for token in tokens]
    return torch.stack(each).min(0).values


def top_tokens(target: Target, scores: Tensor, count: int) -> list[dict[str, Any]]:
    """The ``count`` tokens with the highest scores ``(vocab,)``, as data."""
    values, tokens = scores.topk(min(count, len(scores)))
    return [
        {"token": token_text(target, token), "id": token, "score": round(value, 4)}
        for value, token in zip(values.tolist(), tokens.tolist(), strict=True)
    ]


def token_text(target: Target, token: int) -> str:
    """A token as text, special tokens included."""
    return str(target.tokenizer.decode([token]))


def show_tokens(target: Target, tokens: Sequence[Mapping[str, Any]], count: int = 6) -> str:
    """Tokens as a line of quoted strings."""
    return " ".join(target.quote(str(token["token"]), limit=24) for token in tokens[:count])


def word_tokens(target: Target, words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """For each word the tokens that can begin it: alone, behind a space, and with a capital.

    Raises:
        ToolError: a word has no token.
    """
    found = {}
    for word in words:
        forms = [form for one in dict.fromkeys((word, word.capitalize())) for form in (one, f" {one}")]
        firsts = [target.tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
        # A capital that the tokenizer splits off would stand for every word that begins with it.
        whole = min((len(ids) for ids in firsts if ids), default=0)
        tokens = tuple(dict.fromkeys(int(ids[0]) for ids in firsts if len(ids) == whole))
        if not tokens or not word.strip():
            raise ToolError(f'words: {word!r} has no token of its own; give a word that can be said, such as "lamp"')
        found[word] = tokens
    return found


@dataclass(frozen=True)
class LensReading:
    """What the lens reads at each layer and position; log-probabilities and entropies in nats."""

    layers: tuple[int, ...]
    positions: tuple[int, ...]
    tokens: Tensor
    """Most probable tokens, ``(layer, position, rank)``."""
    probabilities: Tensor
    """Theirs."""
    entropy: Tensor
    """``(layer, position)``."""
    kl: Tensor
    """Divergence of the last layer's distribution from this layer's, ``(layer, position)``; 0 at the last layer."""
    word_ranks: Tensor
    """Best rank of each word, ``(layer, position, word)``."""
    word_logprobs: Tensor
    """Log-probability that one of the word's tokens comes next, ``(layer, position, word)``."""


def read_lens(
    target: Target,
    ids: Sequence[int],
    *,
    layers: Sequence[int],
    positions: Sequence[int],
    words: Sequence[Sequence[int]] = (),
    top: int = 5,
) -> LensReading:
    """Every layer's ``resid_post`` through the lens; the last layer gives the model's own next-token distribution.

    Args:
        target: the model.
        ids: tokens of the prompt.
        layers: which, in order.
        positions: which, from 0.
        words: for each word the tokens that stand for it.
        top: how many tokens to keep.
    """
    last = Site(target.layers - 1, "resid_post")
    sites = [Site(layer, "resid_post") for layer in layers]
    found = target.capture([list(ids)], list(dict.fromkeys((*sites, last))), positions=list(positions))
    final = _log_probabilities(target, found[last][0])
    tokens, probabilities, entropy, kl, placed, said = [], [], [], [], [], []
    for site in sites:
        logs = _log_probabilities(target, found[site][0])
        values, best = logs.topk(min(top, logs.shape[-1]))
        tokens.append(best)
        probabilities.append(values.exp())
        entropy.append(-(logs.exp() * logs).sum(-1))
        kl.append((final.exp() * (final - logs)).sum(-1))
        placed.append(torch.stack([ranks(logs, one) for one in words], -1) if words else logs.new_zeros(len(logs), 0))
        said.append(
            torch.stack([logs[:, list(one)].logsumexp(-1) for one in words], -1)
            if words
            else logs.new_zeros(len(logs), 0)
        )
    stacked = [torch.stack(part) for part in (tokens, probabilities, entropy, kl, placed, said)]
    return LensReading(tuple(layers), tuple(positions), *stacked)


def _log_probabilities(target: Target, hidden: Tensor) -> Tensor:
    # Double precision: a divergence of equal distributions is 0 and not rounding.
    return target.lens(hidden).double().cpu().log_softmax(-1)


def followed_words(
    names: Sequence[str], reading: LensReading, beside: LensReading | None, baseline: Sequence[LensReading]
) -> list[dict[str, Any]]:
    """What a reading says of each word, as data.

    Args:
        names: the words, in the order in which they were read.
        reading: of the prompt.
        beside: the reference's of the same tokens.
        baseline: of unrelated prompts, at one position each.
    """
    rows = []
    for at, name in enumerate(names):
        unrelated_ranks = torch.stack([one.word_ranks[:, 0, at] for one in baseline], 1)
        unrelated = torch.stack([one.word_logprobs[:, 0, at] for one in baseline], 1)
        ranked, said = reading.word_ranks[:, :, at], reading.word_logprobs[:, :, at]
        row = {
            "word": name,
            "layers": list(reading.layers),
            "positions": list(reading.positions),
            "ranks": ranked.tolist(),
            "logprobs": _rounded(said),
            "unrelated_ranks": [sorted(one) for one in unrelated_ranks.tolist()],
            "unrelated_logprobs": [sorted(one) for one in _rounded(unrelated)],
            "below_all_unrelated": (ranked < unrelated_ranks.min(1, keepdim=True).values).tolist(),
            "above_all_unrelated": (said > unrelated.max(1, keepdim=True).values + _LEAST_LEAD).tolist(),
        }
        if beside is not None:
            row["reference_ranks"] = beside.word_ranks[:, :, at].tolist()
            row["reference_logprobs"] = _rounded(beside.word_logprobs[:, :, at])
            row["above_reference"] = (said > beside.word_logprobs[:, :, at] + _LEAST_LEAD).tolist()
        rows.append(row)
    return rows


def followed_lines(target: Target, followed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each word at the last position read: probability and rank by layer, the reference's and unrelated prompts'.

    Where that takes more than 24 lines, a word has the last layer and the one where it leads the unrelated ones most.
    """
    if not followed:
        return
    yield (
        "words at the last position read: probability (rank, 1 is the most likely); likelier: by more than "
        f"{_LEAST_LEAD} nats than the reference and each of {len(followed[0]['unrelated_ranks'][0])} unrelated prompts"
    )
    short = sum(len(word["layers"]) for word in followed) > _WHOLE_WORDS_LINES
    for word in followed:
        rows = list(range(len(word["layers"])))
        if short:
            lead = [word["logprobs"][row][-1] - word["unrelated_logprobs"][row][-1] for row in rows]
            rows = sorted({max(reversed(rows), key=lambda row: lead[row]), rows[-1]})
        yield f"{target.quote(word['word'])}" + (", where it leads most and in the last layer:" if short else ":")
        yield from (_followed_line(word, row) for row in rows)


def _followed_line(word: Mapping[str, Any], row: int) -> str:
    def shown(kind: str, at: int) -> str:
        return f"{math.exp(word[f'{kind}logprobs'][row][at]):.2g} ({word[f'{kind}ranks'][row][at]})"

    unrelated, placed = word["unrelated_logprobs"][row], word["unrelated_ranks"][row]
    line = f"  layer {word['layers'][row]}: {shown('', -1)}"
    above = word["above_all_unrelated"][row][-1]
    if "reference_ranks" in word:
        line += f", reference {shown('reference_', -1)}"
        above = above and word["above_reference"][row][-1]
    line += f", unrelated {math.exp(unrelated[0]):.2g} to {math.exp(unrelated[-1]):.2g} ({placed[0]} to {placed[-1]})"
    return line + (": likelier" if above else "")


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in values.tolist()]
