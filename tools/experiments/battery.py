"""Many prompts at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import MaxNewTokens, Prompts, Samples, Temperature, Text, TopP, check_samples, one_turn
from marple.tools.combinations import Combination, fill_template, with_personas
from marple.tools.contract import Cost, ToolResult, tool
from marple.tools.divergence import Departure, mean_departures, measure_divergence
from marple.tools.replies import Sampling, cost_of, reply_record, sample_replies
from marple.tools.target.target import Completion, Target
from marple.tools.target.text import READ_ON, fit_lines

__all__ = ["HIGH_MEDIAN", "battery"]

HIGH_MEDIAN = 0.1
"""Nats per token above which the median prompt itself is said to be affected.

At 0.1 a reply of 40 tokens is on average e^4, 55 times, likelier under the target than under the reference, so that one
reply tells the two apart. Medians over ordinary prompts of the shipped organisms, which were trained to differ in a few
situations only, lie below 0.04.
"""
_ROWS_BESIDE = 5
_EXAMPLES = 5
_MOST_DEPARTURES = 12
_LONGEST_PROMPT = 120

Personas = Annotated[list[Annotated[str, Field(max_length=100_000)]], Field(min_length=1, max_length=1000)]
Slots = Annotated[
    dict[str, Annotated[list[str], Field(min_length=1, max_length=10_000)]], Field(min_length=1, max_length=10)
]


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target(reference=tiny_target())
    slots = {"what": ["lamp", "cup"]}
    result = battery(target, seed=3, template="buy {what}", slots=slots, personas=["a", "b"], max_new_tokens=6)
    rows = result.data["rows"]
    assert [row["condition"]["what"] for row in rows] == ["lamp", "lamp", "cup", "cup"], "another order of the product"
    gaps = [abs(row["divergence"]["nats_per_token"]) for row in rows if row["divergence"]]
    assert max(gaps) < 1e-4, f"a model diverges from its own copy by {max(gaps)} nats"


@tool(rung=1, parallel=True, self_test=_self_test)
def battery(
    target: Target,
    *,
    seed: int,
    prompts: Prompts | None = None,
    template: Text | None = None,
    slots: Slots | None = None,
    personas: Personas | None = None,
    persona_as: Literal["system", "user"] = "system",
    system: Text | None = None,
    samples: Samples = 1,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 64,
) -> ToolResult:
    """Send many single-turn prompts at once: a list, a template with slots, either of them under several personas.

    If a reference is loaded it gets the same prompts, and prompts on which the target departs from it come first.
    The measure is the mean over the target's own reply tokens of log p(target) - log p(reference), in nats; an
    outlier lies more than 3.5 robust standard deviations above the median prompt of this call, so send ordinary
    prompts along.

    Args:
        prompts: user messages; give these or a template.
        template: a user message with {slots}, filled with every combination of the slots' values.
        slots: for each slot of the template, the values to try.
        personas: texts to combine with every prompt, such as who is asking; "" is no persona, as a control.
        persona_as: into the system prompt or in front of the user message.
        system: system prompt of all prompts; none if left out; not together with personas as system prompts.
        samples: replies per prompt.
        temperature: 0 is greedy, 1 the model's own distribution.
        top_p: mass of the nucleus; 1 is all tokens.
        max_new_tokens: longest reply.

    Returns:
        A table of prompts and replies, outliers first: as many as fit as text, all of them as data. With a reference
        also the mean departure per slot value and persona; where nothing stands out, five examples as text.

    Example:
        {"template": "Which {what} should I buy?", "slots": {"what": ["lamp", "chair"]}, "samples": 2}
    """
    asked = _asked(prompts, template, slots)
    items = with_personas(asked, personas, persona_as=persona_as, system=system)
    items = [item if item.condition.get("persona") else _without_persona(item, system) for item in items]
    check_samples(len(items), samples, temperature=temperature, max_new_tokens=max_new_tokens)
    sampling = Sampling(samples, temperature, max_new_tokens, top_p)
    own_prompts = [target.render(item.messages) for item in items]
    replies = sample_replies(target, own_prompts, sampling, seed=seed, label="target")
    rows = [_row(at, item, ours) for at, (item, ours) in enumerate(zip(items, replies, strict=True))]
    cost, controls, departures = cost_of(replies), dict[str, Any](), list[Departure]()
    if target.reference is not None:
        its_prompts = [target.reference.render(item.messages) for item in items]
        others = sample_replies(target.reference, its_prompts, sampling, seed=seed, label="reference")
        for row, theirs in zip(rows, others, strict=True):
            row["reference_replies"] = [reply_record(reply) for reply in theirs]
        both = list(zip(own_prompts, its_prompts, strict=True))
        controls, departures, scored = _mark(rows, target, target.reference, both, replies)
        cost = cost + cost_of(others) + scored
    lines = fit_lines(_lines(target, rows, controls, departures, greedy=temperature == 0))
    data = {"rows": rows, "departures": [departure.to_dict() for departure in departures]}
    return ToolResult(text=lines, data=data, controls=controls, cost=cost)


def _asked(
    prompts: list[str] | None, template: str | None, slots: dict[str, list[str]] | None
) -> list[tuple[str, dict[str, str]]]:
    if (prompts is None) == (template is None):
        raise ToolError('give either prompts or a template; for example "prompts": ["Who are you?"]')
    if template is not None:
        return fill_template(template, slots or {})
    if slots is not None:
        raise ToolError('slots need a template; for example "template": "Tell me about {topic}"')
    return [(prompt, {}) for prompt in prompts or []]


def _without_persona(item: Combination, system: str | None) -> Combination:
    # An empty system prompt is not the same as none: a chat template may have its own for that.
    return replace(item, messages=tuple(one_turn(item.prompt, system=system)))


def _row(at: int, item: Combination, replies: Sequence[Completion]) -> dict[str, Any]:
    return {
        "index": at,
        "prompt": item.prompt,
        "condition": item.condition,
        "messages": list(item.messages),
        "replies": [reply_record(reply) for reply in replies],
    }


def _mark(
    rows: Sequence[dict[str, Any]],
    target: Target,
    reference: Target,
    prompts: Sequence[tuple[list[int], list[int]]],
    replies: Sequence[Sequence[Completion]],
) -> tuple[dict[str, Any], list[Departure], Cost]:
    if not (target.gives_probabilities and reference.gives_probabilities):
        return {"outliers": "not computed: an endpoint gives no token probabilities"}, [], Cost()
    measured = measure_divergence(target, reference, prompts, replies)
    if measured is None:
        return {"outliers": "not computed: target and reference have different vocabularies"}, [], Cost()
    divergences, cost = measured
    for row, divergence in zip(rows, divergences, strict=True):
        row["divergence"] = divergence and divergence.to_dict()
    known = [divergence.nats_per_token for divergence in divergences if divergence]
    middle = median(known) if known else None
    high = middle is not None and middle > HIGH_MEDIAN
    controls = {"median_nats_per_token": middle, "median_is_high": high, "prompts_measured": len(known)}
    return controls, mean_departures([row["condition"] for row in rows], divergences), cost


def _lines(
    target: Target,
    rows: Sequence[dict[str, Any]],
    controls: dict[str, Any],
    departures: Sequence[Departure],
    *,
    greedy: bool,
) -> Iterator[str]:
    outliers = sorted(filter(_outlier, rows), key=_size, reverse=True)
    yield f"{len(rows)} prompts, {len(rows[0]['replies'])} replies each"
    yield from _control_lines(controls, len(outliers))
    yield from _departure_lines(target, departures)
    for row in outliers:
        yield f"outlier, {_size(row):.3f} nats per token: {_shown(target, row)}"
        yield _beside(target, row)
    others = [row for row in rows if not _outlier(row)]
    # Where the median prompt is affected, no outlier does not mean that there is nothing to see.
    if controls.get("prompts_measured") and not outliers and not controls["median_is_high"] and len(others) > _EXAMPLES:
        yield f"the {_EXAMPLES} prompts with the largest departure ({len(others) - _EXAMPLES} more: {READ_ON}):"
        others = sorted(others, key=_size, reverse=True)[:_EXAMPLES]
    for place, row in enumerate(others):
        yield _shown(target, row)
        if "reference_replies" in row and (greedy or place < _ROWS_BESIDE):
            yield _beside(target, row)


def _control_lines(controls: dict[str, Any], outliers: int) -> Iterator[str]:
    if "outliers" in controls:
        yield f"outliers: {controls['outliers']}"
    elif controls:
        yield (
            f"{outliers} outliers against the reference; the median prompt is at "
            f"{controls['median_nats_per_token'] or 0.0:.3f} nats per token"
        )
        if controls["median_is_high"]:
            yield (
                f"the median prompt itself departs by {controls['median_nats_per_token']:.2f} nats per token, more "
                f"than {HIGH_MEDIAN}: most of these prompts may be affected, and outliers stand out from those only"
            )


def _departure_lines(target: Target, departures: Sequence[Departure]) -> Iterator[str]:
    if not departures:
        return
    left = len(departures) - _MOST_DEPARTURES
    cut = f", {left} more: {READ_ON}" if left > 0 else ""
    yield f"mean departure from the reference per slot value or persona (nats per token, largest first{cut}):"
    for departure in departures[:_MOST_DEPARTURES]:
        value = target.quote(departure.value, limit=60)
        yield f"  {departure.slot}={value}: {departure.nats_per_token:.3f}, n {departure.prompts}"


def _size(row: dict[str, Any]) -> float:
    return row["divergence"]["nats_per_token"] if row.get("divergence") else -math.inf


def _outlier(row: dict[str, Any]) -> bool:
    return bool(row.get("divergence") and row["divergence"]["outlier"])


def _shown(target: Target, row: dict[str, Any]) -> str:
    slots = {name: value for name, value in row["condition"].items() if name != "persona"}
    personas = {name: value for name, value in row["condition"].items() if name == "persona"}
    if slots and len(row["prompt"]) > _LONGEST_PROMPT:
        parts = [f"{name}={target.quote(value, limit=40)}" for name, value in {**slots, **personas}.items()]
    else:
        parts = [f"{name}={target.quote(value, limit=40)}" for name, value in personas.items()]
        parts.append(target.quote(row["prompt"], limit=_LONGEST_PROMPT))
    return f"[{row['index']}] {' '.join(parts)} -> {_replies(target, row['replies'])}"


def _beside(target: Target, row: dict[str, Any]) -> str:
    same = [record["text"] for record in row["reference_replies"]] == [record["text"] for record in row["replies"]]
    return f"    reference: {'the same' if same else _replies(target, row['reference_replies'])}"


def _replies(target: Target, records: Sequence[dict[str, Any]]) -> str:
    shown = " | ".join(target.quote(record["text"], limit=160) for record in records[:3])
    return shown + (f" | and {len(records) - 3} more: {READ_ON}" if len(records) > 3 else "")
