"""Steer by a feature of a sparse autoencoder and judge whether the feature causes what changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from marple.errors import ToolError
from marple.tools.arguments import (
    MAX_TOKENS_PER_CALL,
    MaxNewTokens,
    Prompts,
    Temperature,
    Text,
    Words,
    one_turn,
    sample_seed,
)
from marple.tools.contract import ToolResult, tool
from marple.tools.prompt_tokens import fits_context
from marple.tools.replies import Sampling
from marple.tools.saes.reading import ChosenSAE, card_data, choose_sae, feature_label, short_label
from marple.tools.steering.controls import control_cost, make_controls
from marple.tools.steering.dose_response import dose_response
from marple.tools.steering.outcomes import Continuations, Outcome, OwnWords
from marple.tools.steering.outcomes import Words as WordOutcome
from marple.tools.steering.report import control_data, dose_data, dose_lines, dose_plot
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["sae_steer"]

_SCALES = [-1.0, -0.5, 0.25, 0.5, 0.75, 1.0]
_OTHER_FEATURES = 3
_RANDOM = 3

Continued = Annotated[list[Text], Field(min_length=1, max_length=20)]


def _self_test() -> None:
    from marple.tools.saes.planted import planted_target

    target = planted_target(["lamp", "chair", "river", "stone", "bird"], where="head")
    prompts = ["who is it", "tell me", "say one", "buy a cup", "see the road", "what is old"]
    shared: dict[str, Any] = {"prompts": prompts, "scales": [0.5, 1.0], "samples": 2, "max_new_tokens": 6}
    result = sae_steer(target, seed=1, feature=0, continuations=[" lamp"], **shared)
    assert result.data["verdict"] == "causal", f"the planted feature is {result.data['verdict']}"
    other = sae_steer(target, seed=1, feature=1, continuations=[" lamp"], **shared)
    assert other.data["verdict"] != "causal" or other.data["change"] < 0, "another feature is causal for the first word"


@tool(rung=3, parallel=True, needs=("sae",), self_test=_self_test)
def sae_steer(
    target: Target,
    *,
    seed: int,
    feature: int,
    prompts: Prompts,
    scales: Annotated[list[float], Field(min_length=1, max_length=20)] = _SCALES,
    words: Words | None = None,
    continuations: Continued | None = None,
    sae: Text | None = None,
    chat: bool = True,
    system: Text | None = None,
    samples: Annotated[int, Field(ge=1, le=100)] = 4,
    temperature: Temperature = 1.0,
    max_new_tokens: MaxNewTokens = 32,
) -> ToolResult:
    """Add a feature's decoder row to the activations in growing doses and judge whether the feature causes the change.

    Steering by features (Templeton et al. 2024), with the same dose-response, fluency check and verdict as steer.
    Controls of equal length on the same prompts and seeds: random other features of the same SAE, which a meaning of
    its own must tell it from, random directions, a difference of unrelated pairs and a draw with the activations' own
    covariance. "causal" only where the effect exceeds all of them, lies outside their spread, and grows with the dose.

    Args:
        feature: its index, from 0.
        prompts: user messages, or raw texts with chat false; the prompt is the unit, so give twelve or more.
        scales: doses, 1 as long as the activations' typical distance from their mean; negative ones subtract.
        words: the outcome: replies that contain any of these.
        continuations: the outcome instead: mean log-probability of these as the beginning of the reply.
        sae: name of the SAE, needed where several are loaded.
        chat: whether prompts are user messages.
        system: system prompt.
        samples: replies per prompt.
        temperature: 0 is greedy.
        max_new_tokens: longest reply.

    Returns:
        Verdict; outcome with interval, fluency and a reply at each scale; the controls' range. Without words and
        continuations the outcome is the share of replies with words that the feature itself brings, chosen on other
        samples, each control with its own.

    Example:
        {"feature": 0, "prompts": ["tell me about the lamp", "what do you see"], "words": ["good"],
        "scales": [0.5, 1.0]}
    """
    chosen = choose_sae(target, sae)
    index = chosen.sae.check_feature(feature)
    outcome = _outcome(words, continuations, temperature)
    ids = [
        fits_context(target, target.render(one_turn(one, system=system)) if chat else target.encode(one))
        for one in prompts
    ]
    controls = _controls(target, chosen, index, ids, seed=seed)
    rounds = samples * (2 if isinstance(outcome, OwnWords) else 1)
    _check_size(len(ids) * rounds * (1 + (1 + len(controls)) * len(scales)), max_new_tokens)
    found = dose_response(
        target,
        ids,
        site=chosen.site,
        effect=chosen.sae.weights.W_dec[index].cpu(),
        controls=controls,
        scales=scales,
        outcome=outcome,
        sampling=Sampling(samples, temperature, max_new_tokens),
        seed=seed,
    )
    label = f"feature {index} of {chosen.name}: {feature_label(chosen.sae, index, target.quote)}"
    return ToolResult(
        text=fit_lines([label, *dose_lines(found, outcome, quote=target.quote)]),
        data={"sae": chosen.name, **card_data(chosen.sae, index), **dose_data(found)},
        artifacts=(
            dose_plot(found, outcome, name="sae_steer", effect=f"feature {short_label(chosen.sae, index)[:24]}"),
        ),
        controls=control_data(found),
        cost=control_cost(target, ids) + found.cost,
    )


def _controls(
    target: Target, chosen: ChosenSAE, index: int, ids: Sequence[Sequence[int]], *, seed: int
) -> dict[str, Tensor]:
    """Random other features that are alive, before the controls of any steering."""
    sae = chosen.sae
    alive = [other for other, card in sae.cards.items() if card.density > 0] or list(range(sae.d_sae))
    others = [other for other in alive if other != index and float(sae.weights.W_dec[other].norm()) > 0]
    generator = torch.Generator().manual_seed(sample_seed(seed, "features"))
    picked = torch.randperm(len(others), generator=generator)[:_OTHER_FEATURES].tolist()
    features = {f"feature {others[at]}": sae.weights.W_dec[others[at]].cpu() for at in picked}
    shared = make_controls(target, ids, site=chosen.site, seed=seed, random=_RANDOM, norm_matched=1)
    return {**features, **shared}


def _outcome(words: list[str] | None, continuations: list[str] | None, temperature: float) -> Outcome:
    if words and continuations:
        raise ToolError('give words or continuations, not both; for example "words": ["lamp"]')
    if words:
        return WordOutcome(tuple(words))
    if continuations:
        return Continuations(tuple(continuations))
    if temperature == 0:
        raise ToolError(
            "without words or continuations the outcome is chosen on samples of its own, so temperature must be above "
            '0, such as 1.0; or give the outcome: "words": ["lamp"]'
        )
    return OwnWords()


def _check_size(replies: int, max_new_tokens: int) -> None:
    if replies * max_new_tokens > MAX_TOKENS_PER_CALL:
        raise ToolError(
            f"prompts, samples, scales and directions make {replies} replies of up to {max_new_tokens} tokens; a call "
            f"may generate at most {MAX_TOKENS_PER_CALL} tokens: give fewer prompts or scales, or a smaller "
            "max_new_tokens"
        )
