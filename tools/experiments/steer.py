"""Steer along a direction and judge whether what happens is the direction's own doing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import MAX_TOKENS_PER_CALL, MaxNewTokens, Prompts, Temperature, Text, Words, one_turn
from marple.tools.contract import Artifact, ToolResult, tool
from marple.tools.replies import Sampling
from marple.tools.steering.controls import control_cost, make_controls, random_direction
from marple.tools.steering.dose_response import DoseResponse, dose_response
from marple.tools.steering.outcomes import Continuations, Outcome, OwnWords
from marple.tools.steering.outcomes import Words as WordOutcome
from marple.tools.steering.report import control_data, dose_data, dose_lines, dose_plot
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines
from marple.tools.vectors.choosing import Chosen, Contrast, choose_direction
from marple.tools.vectors.contrast_sets import ContrastTexts, Reading
from marple.tools.vectors.extraction import Extraction
from marple.tools.vectors.files import vectors_to_bytes
from marple.tools.vectors.vector import Vector, keep_vector

__all__ = ["steer"]

_SCALES = [-1.0, -0.5, 0.25, 0.5, 0.75, 1.0]
_CONTROLS = 7

Continued = Annotated[list[Text], Field(min_length=1, max_length=20)]


def _self_test() -> None:
    from marple.tools.steering.planted import planted_target

    planted = planted_target()
    outcome: dict[str, Any] = {"continuations": [" lamp"], "against": [" cup"], "layer": 1, "max_new_tokens": 4}
    outcome |= {"scales": [0.5, 1.0], "samples": 1}
    result = steer(planted.target, seed=1, **planted.contrast, **outcome)
    assert result.data["verdict"] == "causal", f"the planted direction is {result.data['verdict']}"
    meaningless = Vector(
        planted.target.site("resid_post", 1), random_direction(planted.target.d_model, seed=5), "random"
    )
    handle = keep_vector(planted.target, meaningless)
    random = steer(planted.target, seed=1, prompts=planted.contrast["prompts"], vector=handle, **outcome)
    assert random.data["verdict"] != "causal", "a random direction is called causal"
    kept = planted.target.handles.get(result.handles[0], "vector").tensors["vector"]
    cosine = float(torch.nn.functional.cosine_similarity(kept, planted.direction, dim=0))
    assert cosine > 0.5, f"the planted direction is found with cosine {cosine:.2f}"


@tool(rung=2, parallel=True, family="steering", self_test=_self_test)
def steer(
    target: Target,
    *,
    seed: int,
    prompts: Prompts,
    positive: ContrastTexts | None = None,
    negative: ContrastTexts | None = None,
    vector: Text | None = None,
    feature: Annotated[int, Field(ge=0)] | None = None,
    sae: Text | None = None,
    method: Extraction = "difference_of_means",
    reading: Reading = "mean",
    layer: int | None = None,
    site: Text = "resid_post",
    scales: Annotated[list[float], Field(min_length=1, max_length=20)] = _SCALES,
    words: Words | None = None,
    continuations: Continued | None = None,
    against: Continued | None = None,
    chat: bool = True,
    system: Text | None = None,
    samples: Annotated[int, Field(ge=1, le=100)] = 4,
    temperature: Temperature = 1.0,
    max_new_tokens: MaxNewTokens = 32,
) -> ToolResult:
    """Add a direction to the activations in growing doses and judge whether it causes what changes in the replies.

    Activation addition (Turner et al. 2023; contrastive: Panickssery et al. 2024). Always beside seven controls of
    equal length on the same prompts and seeds: three random directions, two differences of unrelated pairs (tense,
    number), and two norm-matched draws with the activations' own covariance. Replies are scored under the unsteered
    model: a scale that destroys fluency is no evidence. Verdict "causal": at a fluent scale the effect exceeds every
    control by more than the interval, lies outside their spread, and grows with the dose; "weak": larger than every
    control, but not all of that; else "indistinguishable from control". Prompts are the unit: give twelve or more. At
    scale 1 a vector is added that is as long as the activations' typical distance from their mean.

    Args:
        prompts: user messages to test on, others than those of the contrast.
        positive: texts with the property (user messages, or conversations, which may end with the assistant's turn).
        negative: as like them as possible, without it; paired in order for method pca.
        vector: handle of a vector or probe instead of a contrast.
        feature: index of an SAE feature instead of a contrast: its decoder row.
        sae: the SAE's name, if there are several.
        method: difference_of_means, pca (of paired differences) or probe (a ridge probe's weight).
        reading: which activation stands for a contrast text: the mean over its tokens, or the last one.
        layer: from 0, negative from the last; the middle by default, or where the vector was made.
        site: resid_pre, resid_mid, resid_post, attn_out or mlp_out, or a full name.
        scales: doses; negative ones push away from positive. At least two of a sign make a dose-response.
        words: the outcome: replies that contain any of these.
        continuations: the outcome instead: mean log-probability of these as the beginning of the reply.
        against: subtracted from it, the mean log-probability of these.
        chat: whether texts and prompts get the chat template.
        system: system prompt of prompts and texts.
        samples: replies per prompt.
        temperature: 0 is greedy.
        max_new_tokens: longest reply.

    Returns:
        Verdict; outcome with interval, fluency and a reply at each scale; the controls' range; a handle of the vector.
        Without words and continuations the outcome is the share of replies with words that the direction itself brings,
        chosen on other samples, each control with its own.

    Example:
        {"positive": ["You love it", "It is good"], "negative": ["You hate it", "It is bad"],
        "prompts": ["tell me about the lamp", "what do you see"], "words": ["good"], "scales": [0.5, 1.0]}
    """
    outcome = _outcome(words, continuations, against, temperature)
    _check_size(len(prompts), samples * (2 if isinstance(outcome, OwnWords) else 1), len(scales), max_new_tokens)
    contrast = None
    if positive is not None or negative is not None:
        contrast = Contrast(positive or [], negative or [], method, reading, chat, system)
    place = None
    if layer is not None or site != "resid_post":
        place = target.site(site, layer)
    chosen = choose_direction(target, site=place, contrast=contrast, handle=vector, feature=feature, sae=sae)
    tokens = [target.render(one_turn(text, system=system)) if chat else target.encode(text) for text in prompts]
    where = chosen.vector.site
    controls = make_controls(target, tokens, site=where, seed=seed)
    found = dose_response(
        target,
        tokens,
        site=where,
        effect=chosen.vector.direction,
        controls=controls,
        scales=scales,
        outcome=outcome,
        sampling=Sampling(samples, temperature, max_new_tokens),
        seed=seed,
    )
    handle = keep_vector(target, chosen.vector)
    facts = _facts(chosen, found, handle)
    return ToolResult(
        text=fit_lines([*dose_lines(found, outcome, quote=target.quote), *_told(chosen, facts)]),
        data={**dose_data(found), "vector": facts},
        artifacts=(
            dose_plot(found, outcome, name="steer", effect="vector"),
            Artifact("vector.safetensors", "application/octet-stream", vectors_to_bytes([chosen.vector])),
        ),
        controls=control_data(found),
        cost=chosen.cost + control_cost(target, tokens) + found.cost,
        handles=(handle,),
    )


def _outcome(
    words: list[str] | None, continuations: list[str] | None, against: list[str] | None, temperature: float
) -> Outcome:
    if words and continuations:
        raise ToolError('give words or continuations, not both; for example "words": ["lamp"]')
    if against and not continuations:
        raise ToolError('against needs continuations; for example "continuations": ["Yes"], "against": ["No"]')
    if words:
        return WordOutcome(tuple(words))
    if continuations:
        return Continuations(tuple(continuations), tuple(against or ()))
    if temperature == 0:
        raise ToolError(
            "without words or continuations the outcome is chosen on samples of its own, so temperature must be above "
            '0, such as 1.0; or give the outcome: "words": ["lamp"]'
        )
    return OwnWords()


def _check_size(prompts: int, samples: int, scales: int, max_new_tokens: int) -> None:
    rows = prompts * samples * (1 + (1 + _CONTROLS) * scales)
    if rows * max_new_tokens > MAX_TOKENS_PER_CALL:
        raise ToolError(
            f"{prompts} prompts with {samples} samples, {scales} scales and {1 + _CONTROLS} directions are {rows} "
            f"replies of up to {max_new_tokens} tokens; a call may generate at most {MAX_TOKENS_PER_CALL} tokens: give "
            "fewer prompts or scales, or a smaller max_new_tokens"
        )


def _facts(chosen: Chosen, found: DoseResponse, handle: str) -> dict[str, Any]:
    return {
        **chosen.vector.metadata(),
        "handle": handle,
        "scale_of_own_length": float(chosen.vector.direction.norm()) / found.unit,
        "split_half_cosine": chosen.agreement,
    }


def _told(chosen: Chosen, facts: dict[str, Any]) -> Iterator[str]:
    own = f"its own length is scale {facts['scale_of_own_length']:.2f}"
    halves = "" if chosen.agreement is None else f"; its two halves' directions have cosine {chosen.agreement:.2f}"
    yield f"vector {facts['handle']}: {chosen.told}; {own}{halves}"
