"""Which tokens, or which activations, is an answer due to? By gradients, checked by real replacements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Text, sample_seed
from marple.tools.attribution import report
from marple.tools.attribution.estimates import estimate_patches, integrate_inputs
from marple.tools.attribution.gradients import Metric, input_states
from marple.tools.contract import Cost, ToolResult, tool, tool_spec
from marple.tools.engine.sites import Site
from marple.tools.lenses import token_text
from marple.tools.patching import aligned_positions, answer_tokens, pair_label
from marple.tools.prompt_tokens import Beginning, continuation_tokens, encode_pair, resolve_layers
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["attribute"]

_CHECKED = 10
_CHECKED_WHOLE = 64
_SHOWN = 12
_EVERYDAY = (
    "The weather was cold this morning and the train was late.",
    "How do I boil an egg so that it stays soft?",
    "She put the old book back on the shelf and went out.",
    "What is the difference between a frog and a toad?",
)


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target()
    asked = {"prompt": "tell me about the red lamp", "corrupted": "tell me about the blue lamp", "chat": False}
    result = tool_spec(attribute).run(target, {**asked, "answer": " cat"}, seed=1)
    shares = [row["attribution"] for row in result.data["tokens"]]
    assert all(abs(value) < 1e-6 for value in shares[:-2]), f"tokens that do not differ have a share: {shares}"
    error = result.controls["completeness_error"]
    assert error is not None
    assert error < 0.02, f"the shares do not sum to the effect, error {error}"


@tool(rung=3, parallel=True, family="attribution", self_test=_self_test)
def attribute(
    target: Target,
    *,
    seed: int,
    prompt: Text,
    answer: Text,
    other: Text | None = None,
    corrupted: Text | None = None,
    method: Literal["integrated_gradients", "patching"] = "integrated_gradients",
    chat: bool = True,
    system: Text | None = None,
    prefill: Beginning | None = None,
    site: Literal["resid_pre", "resid_post", "attn_out", "mlp_out"] = "resid_post",
    layers: Annotated[list[int], Field(min_length=1)] | None = None,
    positions: Annotated[list[int], Field(min_length=1, max_length=500)] | None = None,
    steps: Annotated[int, Field(ge=1, le=1024)] | None = None,
) -> ToolResult:
    """Attribute an answer to input tokens, or to activations of every layer and position, by gradients.

    integrated_gradients: how much each token of the prompt contributes, on the way from a baseline input to the prompt
    (Sundararajan et al. 2017); the shares sum to the effect of all tokens, and the error of that sum is reported.
    patching: an estimate of what ``patch`` would find in every cell, from few passes (attribution patching, Nanda 2023;
    Kramar et al. 2024 on where it fails: saturation and cancellation). Gradients are averaged over inputs between the
    corrupted and the clean prompt (Hanna et al. 2024); steps 1 is the plain method.

    Controls: the same estimate with random directions of the same length; and really replacing every token of a prompt
    of up to 64, otherwise the ten largest cells and ten others, with the correlation of estimate and measurement. Where
    that is low, what was measured decides the order; trust it, and ``patch``.

    Args:
        prompt: the prompt whose answer is explained.
        answer: how it goes on.
        other: the answer it is held against: the metric is then the difference of the logits of both first tokens,
            otherwise the log-probability of the whole answer.
        corrupted: the prompt with the part changed that matters, equally many tokens; the baseline of
            integrated_gradients (an average input without it), needed for patching.
        method: which.
        chat: whether the prompts are user messages; false for raw text.
        system: system prompt.
        prefill: how the reply begins; "" is none.
        site: for patching, what is replaced.
        layers: for patching, from 0; all by default.
        positions: for patching, from 0 or negative from the end; by default all from the first token that differs.
        steps: gradients averaged; by default 64 for integrated_gradients and 8 for patching.

    Returns:
        integrated_gradients: each token's share in units of the metric; patching: the estimate by layer and position.
        Both with the control, what was measured for checked cells, and their agreement.

    Example:
        {"prompt": "I am a nurse. Which lamp?", "corrupted": "I am a pilot. Which lamp?", "answer": "red",
        "other": "blue", "prefill": "I recommend the"}
    """
    ids = encode_pair(target, [prompt, *([corrupted] if corrupted else [])], chat=chat, system=system, prefill=prefill)
    metric = _metric(target, ids[0], answer, other)
    if method == "integrated_gradients":
        return _integrated(target, ids, metric, steps=steps or 64, seed=sample_seed(seed, "controls"))
    if len(ids) < 2:
        raise ToolError('method "patching" needs corrupted: the prompt with the part changed whose effect is sought')
    at = aligned_positions(target, ids[0], ids[1], positions)
    if len(ids[0]) != len(ids[1]):
        raise ToolError(
            f"prompt has {len(ids[0])} tokens and corrupted {len(ids[1])}; gradients are averaged between the two, so "
            "they must have equally many, also where positions are given: use patch, or words with as many tokens"
        )
    sites = [Site(layer, site) for layer in resolve_layers(target, layers, site=site)]
    return _patched(target, ids, metric, sites, at, steps=steps or 8, seed=sample_seed(seed, "controls"))


def _metric(target: Target, prompt: Sequence[int], answer: str, other: str | None) -> Metric:
    if other is None:
        metric = Metric(tuple(continuation_tokens(target, answer)))
    else:
        tokens = answer_tokens(target, answer, other)
        metric = Metric((tokens[0],), tokens[1])
    length = len(prompt) + len(metric.answer)
    if target.context is not None and length > target.context:
        raise ToolError(
            f"prompt and answer have {length} tokens, but the model's context holds {target.context}: shorten the "
            "prompt, for example to its end"
        )
    return metric


def _integrated(target: Target, ids: Sequence[tuple[int, ...]], metric: Metric, *, steps: int, seed: int) -> ToolResult:
    prompt = ids[0]
    spent = 0
    if len(ids) > 1:
        aligned_positions(target, prompt, ids[1], None)
        baseline, spent = input_states(target, [ids[1]])[0], len(ids[1])
        against = "the corrupted prompt"
    else:
        everyday = [target.encode(one) for one in _EVERYDAY]
        mean = torch.cat([one[1:] for one in input_states(target, everyday)]).mean(0)
        baseline, spent = mean.expand(len(prompt), -1), sum(map(len, everyday))
        against = "the mean input of everyday sentences"
    check = len(prompt) if len(prompt) <= _CHECKED_WHOLE else _CHECKED
    found = integrate_inputs(target, prompt, baseline, metric, steps=steps, check=check, seed=seed)
    total = float(found.effect.sum())
    error = abs(total - found.measured) / abs(found.measured) if abs(found.measured) > 1e-6 else None
    names = [token_text(target, token) for token in prompt]
    measured = {column: value for _, column, value in found.checked}
    tokens: list[dict[str, Any]] = [
        {
            "position": at,
            "token": names[at],
            "attribution": round(float(found.effect[0, at]), 6),
            "random_control": round(float(found.control[0, at]), 6),
            "measured": measured.get(at),
        }
        for at in range(len(prompt))
    ]
    unit, agreement = report.unit(target, metric), report.agreement(found)
    ordered = _largest(tokens, "attribution" if report.trusted(found) else "measured")
    lines = [
        *report.warnings(found, error),
        f"{unit}, against {against}: all tokens together {found.measured:+.3f}; the shares sum to {total:+.3f}"
        + ("" if error is None else f" (completeness error {error:.1%} at {steps} steps)"),
        ("largest shares" if report.trusted(found) else "largest measured effects, beside the shares")
        + " (random: directions of the same length; measured: what replacing the token alone takes away):",
        *(report.token_line(target, row) for row in ordered),
    ]
    run = len(metric.tokens(prompt))
    return ToolResult(
        text=fit_lines(lines),
        data={"tokens": tokens, "sum": total, "measured": found.measured, "baseline": against, "steps": steps},
        artifacts=(report.token_plot(tokens, unit),),
        controls={"completeness_error": error, **agreement},
        cost=Cost(prompt_tokens=spent + run * (steps + 1) + (2 + len(found.checked)) * len(prompt)),
    )


def _patched(
    target: Target,
    ids: Sequence[tuple[int, ...]],
    metric: Metric,
    sites: Sequence[Site],
    positions: Sequence[int],
    *,
    steps: int,
    seed: int,
) -> ToolResult:
    found = estimate_patches(
        target, ids[0], ids[1], metric, sites=sites, positions=positions, steps=steps, check=_CHECKED, seed=seed
    )
    names = [pair_label(target, ids[0], ids[1], position) for position in positions]
    cells: list[dict[str, Any]] = [
        {
            "site": str(sites[row]),
            "layer": sites[row].layer,
            "position": positions[column],
            "token": names[column],
            "estimate": float(found.effect[row, column]),
            "random_control": float(found.control[row, column]),
            "measured": value,
        }
        for row, column, value in found.checked
    ]
    if not report.trusted(found):
        cells.sort(key=lambda cell: -abs(cell["measured"]))
    lines = [
        *report.warnings(found, None),
        f"{report.unit(target, metric)}: {found.measured:+.3f} from corrupted to clean; estimated effect of putting "
        f"one clean activation into the corrupted run, {len(sites)} layers x {len(positions)} positions, {steps} steps",
        ("largest estimates" if report.trusted(found) else "largest measured effects, beside the estimates")
        + " (random: directions of the same length; measured by real patching):",
        *(report.cell_line(target, cell) for cell in cells[:_SHOWN]),
    ]
    run = len(metric.tokens(ids[0]))
    return ToolResult(
        text=fit_lines(lines),
        data={
            "layers": [site.layer for site in sites],
            "positions": [{"position": one, "token": name} for one, name in zip(positions, names, strict=True)],
            "estimate": found.effect.tolist(),
            "random_control": found.control.tolist(),
            "checked": cells,
            "measured_in_all": found.measured,
            "steps": steps,
        },
        artifacts=(report.grid_plot(found, sites, names),),
        controls=report.agreement(found),
        cost=Cost(prompt_tokens=run * (steps + 4) + (2 + len(cells)) * len(ids[0])),
    )


def _largest(tokens: Sequence[dict[str, Any]], by: Literal["attribution", "measured"]) -> list[dict[str, Any]]:
    """Tokens with a share, or with a measured effect, the largest first."""
    counted = [row for row in tokens if row[by] is not None and abs(row[by]) > 1e-6]
    return sorted(counted, key=lambda row: -abs(float(row[by])))[:_SHOWN]
