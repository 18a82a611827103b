"""A vector or probe over the tokens of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Message, Model, Text, choose_model, one_turn
from marple.tools.contract import Artifact, Cost, ToolResult, tool
from marple.tools.lenses import token_text
from marple.tools.plots import figure, plot_artifact, visible
from marple.tools.prompt_tokens import encode_prompt
from marple.tools.steering.controls import UNRELATED_PAIRS
from marple.tools.target.target import Target
from marple.tools.target.text import READ_ON, fit_lines
from marple.tools.vectors.choosing import Contrast, choose_direction
from marple.tools.vectors.contrast_sets import ContrastTexts, Reading
from marple.tools.vectors.projection import CONTROLS, Projections, project_tokens
from marple.tools.vectors.vector import check_width, keep_vector, kept_direction

__all__ = ["project"]

_LISTED = 12
_PER_LINE = 12
_DRAWN = 144


def _self_test() -> None:
    from marple.tools.steering.planted import planted_target
    from marple.tools.vectors.vector import Vector, keep_vector

    planted = planted_target()
    target = planted.target
    handle = keep_vector(target, Vector(target.site("resid_pre", 0), planted.direction, "planted"))
    result = project(target, seed=1, vector=handle, text="the old good stone and the bad road")
    found = {row["token"].strip(): row for row in result.data["tokens"]}
    assert found["good"]["z"] > 3, f"the planted direction is not seen at its token: z {found['good']['z']:.2f}"
    assert found["bad"]["z"] < -3, f"the planted direction is not seen at its opposite: z {found['bad']['z']:.2f}"
    assert result.data["p_value"] <= 0.05, f"the planted direction is like a random one: p {result.data['p_value']:.2f}"
    assert max(abs(row["z"]) for name, row in found.items() if name not in ("good", "bad")) < 3


@tool(rung=2, parallel=True, family="probing", self_test=_self_test)
def project(
    target: Target,
    *,
    seed: int,
    vector: Text | None = None,
    positive: ContrastTexts | None = None,
    negative: ContrastTexts | None = None,
    feature: Annotated[int, Field(ge=0)] | None = None,
    sae: Text | None = None,
    reading: Reading = "mean",
    text: Text | None = None,
    messages: Annotated[list[Message], Field(min_length=1)] | None = None,
    prefill: Text | None = None,
    layer: int | None = None,
    site: Text = "resid_post",
    on: Model = "target",
) -> ToolResult:
    """Show where in a text a direction is strong: the projection of every token's activation, as a heat map.

    The direction is a vector of steer, a probe, an SAE feature's decoder row, or the difference of means of two sets of
    texts, extracted from the target (Panickssery et al. 2024; Zou et al. 2023 read behaviour off such projections). z
    counts standard deviations from its mean over 24 everyday sentences, since an average projection means nothing.
    Control: the same for 100 random directions; a token is marked only if its z lies outside the middle 95 % of theirs,
    so about one token in twenty is marked by chance, and p says how many random directions have as large a |z|
    anywhere. The first token is not judged: its activation is unusual in every direction.

    Args:
        vector: handle of a vector or of a probe.
        positive: instead, texts with a property; then also negative.
        negative: texts without it.
        feature: instead, index of an SAE feature.
        sae: the SAE's name, if there are several.
        reading: which activation stands for a contrast text, the mean over its tokens or the last one.
        text: raw text to read.
        messages: a conversation to read instead, a user message last.
        prefill: how the reply begins, to read inside it.
        layer: from 0, negative from the last; by default where the vector was made, the middle for a contrast.
        site: resid_pre, resid_mid, resid_post, attn_out or mlp_out, or a full name.
        on: which model to read.

    Returns:
        For each token the projection, z, the random directions' band and, for a probe, its decision value (positive
        above 0); a handle of the vector.

    Example:
        {"positive": ["You love it", "It is good"], "negative": ["You hate it", "It is bad"],
        "messages": [{"role": "user", "content": "Which lamp should I buy?"}]}
    """
    model = choose_model(target, on)
    place = model.site(site, layer) if layer is not None or site != "resid_post" else None
    contrast = None
    if positive is not None or negative is not None:
        contrast = Contrast(positive or [], negative or [], "difference_of_means", reading, True, None)
    chosen = choose_direction(target, site=place, contrast=contrast, handle=vector, feature=feature, sae=sae)
    where, direction = chosen.vector.site, chosen.vector.direction
    check_width(model, direction, what="the direction")
    is_probe = vector is not None and vector.startswith("probe")
    name = vector or keep_vector(target, chosen.vector)
    ids = encode_prompt(model, text=text, messages=messages, prefill=prefill)
    if len(ids) < 2:
        raise ToolError("the text has one token, and the first is not judged; give a text of at least two tokens")
    everyday = [one for pairs in UNRELATED_PAIRS.values() for pair in pairs for one in pair]
    neutral = [model.encode(one) if messages is None else model.render(one_turn(one)) for one in everyday]
    found = project_tokens(model, ids, neutral, site=where, direction=direction, seed=seed)
    tokens = [token_text(model, one) for one in ids]
    decision = found.raw * float(direction.norm()) + kept_direction(target, name)[1] if is_probe else None
    return ToolResult(
        text=fit_lines(_lines(model, f"{name} ({chosen.told})", str(where), tokens, found, decision)),
        data={
            "vector": name,
            "site": str(where),
            "tokens": _rows(tokens, found, decision),
            "largest_z": found.largest,
            "p_value": found.p_value,
            "neutral_mean": found.neutral_mean,
            "neutral_deviation": found.neutral_deviation,
        },
        artifacts=(_plot(name, str(where), tokens, found),),
        controls={
            "random_directions": CONTROLS,
            "largest_z_95_percent": float(np.quantile(found.control_largest, 0.95)),
            "tokens_outside": int(found.outside.sum()),
            "tokens_outside_by_chance": 0.05 * (len(ids) - 1),
        },
        cost=chosen.cost + Cost(prompt_tokens=len(ids) + sum(map(len, neutral))),
        handles=(name,),
    )


def _rows(tokens: Sequence[str], found: Projections, decision: Any) -> list[dict[str, Any]]:
    rows = []
    for at, token in enumerate(tokens):
        row = {
            "position": at,
            "token": token,
            "projection": float(found.raw[at]),
            "z": float(found.z[at]),
            "band_low": float(found.low[at]),
            "band_high": float(found.high[at]),
            "outside": bool(found.outside[at]),
        }
        rows.append(row if decision is None else {**row, "decision": float(decision[at])})
    return rows


def _lines(
    model: Target, vector: str, where: str, tokens: Sequence[str], found: Projections, decision: Any
) -> Iterator[str]:
    limit = float(np.quantile(found.control_largest, 0.95))
    verdict = "more than" if found.p_value <= 0.05 else "no more than"
    yield (
        f"{vector} at {where} over {len(tokens)} tokens: largest |z| {found.largest:.2f}, {verdict} random directions "
        f"(95 % of them stay below {limit:.2f}; p {found.p_value:.2f})"
    )
    count = int(found.outside.sum())
    yield f"{count} tokens outside the random directions' band, about {0.05 * (len(tokens) - 1):.1f} expected by chance"
    order = np.argsort(-np.abs(found.z), kind="stable")[:_LISTED]
    yield f"strongest tokens (of all, in order: {READ_ON}):"
    for at in order:
        mark = " outside" if found.outside[at] else ""
        told = "" if decision is None else f", decision {decision[at]:+.2f}"
        band = f"{found.low[at]:+.2f} to {found.high[at]:+.2f}"
        yield f"  {at} {model.quote(tokens[at])}: z {found.z[at]:+.2f}, band {band}{mark}{told}"


def _plot(vector: str, where: str, tokens: Sequence[str], found: Projections) -> Artifact:
    """The text in lines of cells, coloured by z; framed cells lie outside of the random directions' band."""
    count = min(len(tokens), _DRAWN)
    lines = -(-count // _PER_LINE)
    grid = np.full((lines, _PER_LINE), np.nan)
    grid.ravel()[:count] = found.z[:count]
    size = max(3.0, float(np.abs(found.z[:count]).max()))
    with figure(10.5, 1.3 + 0.42 * lines) as (made, (axes,)):
        image = axes.imshow(grid, cmap="RdBu_r", vmin=-size, vmax=size, aspect="auto", interpolation="nearest")
        for at in range(count):
            row, column = divmod(at, _PER_LINE)
            shade = "white" if abs(found.z[at]) > 0.6 * size else "black"
            axes.text(column, row, visible(tokens[at], limit=11), ha="center", va="center", fontsize=7.5, color=shade)
            if found.outside[at]:
                axes.plot(
                    [column - 0.46, column + 0.46, column + 0.46, column - 0.46, column - 0.46],
                    [row - 0.42, row - 0.42, row + 0.42, row + 0.42, row - 0.42],
                    color="black",
                    linewidth=1.3,
                )
        axes.set_xticks([])
        axes.set_yticks(range(lines), [str(line * _PER_LINE) for line in range(lines)])
        cut = f", first {count} of {len(tokens)} tokens" if count < len(tokens) else ""
        axes.set(ylabel="token", title=f"{vector} at {where}{cut}; framed: outside 95 % of random directions")
        axes.grid(visible=False)
        made.colorbar(image, label="z against everyday text", fraction=0.03, pad=0.01)
        return plot_artifact("project", made)
