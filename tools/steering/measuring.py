"""Measure an outcome on the replies, or on the steered model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from marple.errors import ToolError
from marple.tools.contract import Cost
from marple.tools.engine.interventions import Intervention
from marple.tools.steering.outcomes import (
    Continuations,
    Outcome,
    OwnWords,
    Projection,
    Words,
    contains_any,
    grown_ngrams,
    holds_ngram,
)
from marple.tools.target.target import Completion, Target

__all__ = ["Arm", "Measured", "Replies", "measure"]

Arm = tuple[Intervention, ...]
"""The edits of one direction at one scale; empty for the unsteered model."""

Replies = Sequence[Sequence[Sequence[Completion]]]
"""By arm, prompt and sample; the unsteered first."""


@dataclass(frozen=True)
class Measured:
    """Outcomes, one number per arm and prompt."""

    unsteered: NDArray[np.float64]
    """``(arm, prompt)``: the unsteered model's outcome that each steered arm is compared with."""
    steered: NDArray[np.float64]
    """``(arm, prompt)``."""
    own_words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cost: Cost = Cost()


def measure(
    target: Target,
    prompts: Sequence[Sequence[int]],
    arms: Sequence[Arm],
    replies: Replies,
    outcome: Outcome,
    *,
    directions: Sequence[str],
    scales: Sequence[float],
    fluent: NDArray[np.bool_],
) -> Measured:
    """The outcome of every arm on every prompt.

    Args:
        target: the model.
        prompts: token ids of each prompt.
        arms: unsteered first, then each direction at each scale.
        replies: of the arms.
        outcome: what to measure.
        directions: names, in the order of the arms.
        scales: in the order of the arms.
        fluent: ``(direction, scale)``; own words are chosen at fluent scales alone.

    Raises:
        ToolError: an outcome's word or continuation is empty, or a projection has another width.
    """
    if isinstance(outcome, OwnWords):
        return _own_words(replies, outcome, directions=directions, scales=scales, fluent=fluent)
    cost = Cost()
    if isinstance(outcome, Words):
        pattern = contains_any(outcome.words)
        values = np.array([[_share(row, lambda text: bool(pattern.search(text))) for row in arm] for arm in replies])
    elif isinstance(outcome, Continuations):
        values, cost = _log_probabilities(target, prompts, arms, outcome)
    else:
        values, cost = _projections(target, prompts, arms, outcome)
    return Measured(np.broadcast_to(values[0], values[1:].shape), values[1:], cost=cost)


def _share(row: Sequence[Completion], holds: Callable[[str], bool]) -> float:
    return float(np.mean([holds(reply.text) for reply in row]))


def _own_words(
    replies: Replies,
    outcome: OwnWords,
    *,
    directions: Sequence[str],
    scales: Sequence[float],
    fluent: NDArray[np.bool_],
) -> Measured:
    """The first half of each prompt's samples chooses the n-grams, the second half is measured."""
    half = len(replies[0][0]) // 2
    chosen: dict[str, tuple[str, ...]] = {}
    steered, unsteered = [], []
    chosen_on = [[reply.text for row in arm for reply in row[:half]] for arm in replies]
    for at, name in enumerate(directions):
        for sign in (1, -1):
            mine = [s for s, scale in enumerate(scales) if scale * sign > 0 and fluent[at, s]]
            texts = [text for s in mine for text in chosen_on[1 + at * len(scales) + s]]
            chosen[_own_key(name, sign)] = grown_ngrams(texts, chosen_on[0], most=outcome.most)
        for s, scale in enumerate(scales):
            words = chosen[_own_key(name, 1 if scale > 0 else -1)]
            steered.append(_held(replies[1 + at * len(scales) + s], words, half))
            unsteered.append(_held(replies[0], words, half))
    return Measured(np.array(unsteered), np.array(steered), chosen)


def _own_key(name: str, sign: int) -> str:
    return f"{name} {'+' if sign > 0 else '-'}"


def _held(arm: Sequence[Sequence[Completion]], words: Sequence[str], half: int) -> list[float]:
    return [_share(row[half:], lambda text: holds_ngram(text, words)) for row in arm]


def _log_probabilities(
    target: Target, prompts: Sequence[Sequence[int]], arms: Sequence[Arm], outcome: Continuations
) -> tuple[NDArray[np.float64], Cost]:
    tokens = [[_tokens(target, text) for text in side] for side in (outcome.more, outcome.less)]
    if not tokens[0]:
        raise ToolError('continuations: none is given; for example ["Yes"]')
    every = [*tokens[0], *tokens[1]]
    pairs = [(prompt, ids) for _ in arms for prompt in prompts for ids in every]
    edits = [arm for arm in arms for _ in range(len(prompts) * len(every))]
    totals = np.array([sum(row) for row in target.score(pairs, interventions=edits)])
    table = totals.reshape(len(arms), len(prompts), len(every))
    more, less = table[:, :, : len(tokens[0])], table[:, :, len(tokens[0]) :]
    values = more.mean(axis=2) - (less.mean(axis=2) if tokens[1] else 0.0)
    return values, Cost(prompt_tokens=sum(len(prompt) + len(ids) for prompt, ids in pairs))


def _tokens(target: Target, text: str) -> list[int]:
    ids = [int(token) for token in target.tokenizer(text, add_special_tokens=False)["input_ids"]]
    if not ids:
        raise ToolError(f'continuation {text!r} has no token; give text such as "Yes"')
    return ids


def _projections(
    target: Target, prompts: Sequence[Sequence[int]], arms: Sequence[Arm], outcome: Projection
) -> tuple[NDArray[np.float64], Cost]:
    direction = outcome.direction.float()
    if tuple(direction.shape) != (target.d_model,):
        raise ToolError(f"the projection's direction has shape {tuple(direction.shape)}, not ({target.d_model},)")
    many = [prompt for _ in arms for prompt in prompts]
    edits = [arm for arm in arms for _ in prompts]
    states = target.capture(many, [outcome.site], positions="last", interventions=edits)[outcome.site]
    unit = direction / direction.norm().clamp(min=1e-12)
    values = np.array([float(state.float().cpu() @ unit.cpu()) for state in states])
    return values.reshape(len(arms), len(prompts)), Cost(prompt_tokens=sum(map(len, many)))
