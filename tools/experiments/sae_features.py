"""The features of a sparse autoencoder that a text or a conversation activates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from marple.tools.arguments import Message, Model, Text, choose_model
from marple.tools.contract import Cost, ToolResult, tool
from marple.tools.lenses import token_text
from marple.tools.prompt_tokens import encode_prompt, resolve_positions
from marple.tools.saes.activations import first_position
from marple.tools.saes.pictures import token_heat_map
from marple.tools.saes.reading import (
    ChosenSAE,
    FeatureList,
    card_data,
    check_explained,
    choose_sae,
    feature_label,
    short_label,
)
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["sae_features"]

_PER_TOKEN = 5
_PLOTTED = 16


def _self_test() -> None:
    from marple.tools.saes.planted import planted_target

    target = planted_target(["lamp", "chair", "river", "stone"])
    result = sae_features(target, seed=0, text="red lamp and river")
    top = {row["feature"]: row["position"] for row in result.data["features"]}
    assert top == {0: 2, 2: 4}, f"features 0 and 2 were planted at positions 2 and 4, found {top}"
    assert abs(result.data["features"][0]["maximum"] - 0.25) < 1e-3
    one = sae_features(target, seed=0, text="red lamp and river", position=-1)
    assert [row["feature"] for row in one.data["features"]] == [2], "the last token is the river"


@tool(rung=3, parallel=True, needs=("sae",), self_test=_self_test)
def sae_features(
    target: Target,
    *,
    seed: int,
    text: Text | None = None,
    messages: Annotated[list[Message], Field(min_length=1)] | None = None,
    prefill: Text | None = None,
    position: int | None = None,
    features: FeatureList | None = None,
    top: Annotated[int, Field(ge=1, le=100)] = 12,
    on: Model = "target",
    sae: Text | None = None,
) -> ToolResult:
    """Show the strongest features of a sparse autoencoder in a text, at one position or over all tokens.

    Over all tokens, features are ranked by what they have beyond chance: their mean activation minus that on the texts
    the SAE was described on, where its cards say so, so that features that are always on do not come first. A
    beginning-of-sequence token is left out: its activations are outliers.

    Baseline: density and mean activation on the card's texts. Control: how much of the variance of these very
    activations the SAE explains; where it is little, its features say little.

    Args:
        text: raw text.
        messages: a conversation instead, a user message last.
        prefill: how the reply begins.
        position: one token, from 0, negative from the end; all tokens by default.
        features: show these features whatever their rank.
        top: how many features.
        on: which model reads.
        sae: name of the SAE, needed where several are loaded.

    Returns:
        Features with activation, where they are strongest, density and what they are; the strongest features of every
        token.

    Example:
        {"messages": [{"role": "user", "content": "Which lamp should I buy?"}], "position": -1}
    """
    chosen, model = choose_sae(target, sae), choose_model(target, on)
    ids = encode_prompt(model, text=text, messages=messages, prefill=prefill)
    wanted = [chosen.sae.check_feature(index) for index in features or ()]
    first = first_position(model, ids)
    at = None if position is None else resolve_positions([position], len(ids))[0]
    states = model.capture([ids], [chosen.site], positions="all")[chosen.site][0]
    dense = chosen.sae.encode(states).cpu().numpy()
    dense[:first] = 0
    explained = check_explained(chosen, [states[first:]])
    ranked = _ranked(chosen, dense[first:] if at is None else dense[at : at + 1])[:top]
    ranked += [index for index in wanted if index not in ranked]
    tokens = [token_text(model, token) for token in ids]
    rows = [_row(chosen, index, dense, tokens, at, first) for index in ranked]
    plotted = ranked[:_PLOTTED]
    return ToolResult(
        text=fit_lines(_lines(model, chosen, rows, tokens, at)),
        data={
            "sae": chosen.name,
            "site": str(chosen.site),
            "features": rows,
            "tokens": _tokens(chosen, dense, tokens),
        },
        artifacts=(
            token_heat_map(
                "sae_features",
                tokens[first:],
                [short_label(chosen.sae, index) for index in plotted],
                dense[first:, plotted].T,
                title=f"features at {chosen.site}",
                first=first,
            ),
        )
        if plotted
        else (),
        controls={"reconstruction": {"fvu": explained.fvu, "l0": explained.l0, "tokens": explained.tokens}},
        cost=Cost(prompt_tokens=len(ids)),
    )


def _ranked(chosen: ChosenSAE, dense: NDArray[np.float32]) -> list[int]:
    """Active features by mean activation beyond that on the texts of their cards."""
    mean = dense.mean(0)
    active = np.flatnonzero(mean)
    expected = np.array([_expected(chosen, int(index)) for index in active])
    return [int(index) for index in active[np.argsort(expected - mean[active], kind="stable")]]


def _expected(chosen: ChosenSAE, index: int) -> float:
    card = chosen.sae.cards.get(index)
    return card.density * card.mean if card else 0.0


def _row(
    chosen: ChosenSAE, index: int, dense: NDArray[np.float32], tokens: Sequence[str], at: int | None, first: int
) -> dict[str, Any]:
    values = dense[first:, index]
    strongest = at if at is not None else first + int(values.argmax())
    return {
        **card_data(chosen.sae, index),
        "activation": round(float(dense[strongest, index]), 4),
        "position": strongest,
        "token": tokens[strongest],
        "mean": round(float(values.mean()), 4),
        "maximum": round(float(values.max()), 4),
        "share_of_tokens": round(float((values > 0).mean()), 4),
        "expected_mean": round(_expected(chosen, index), 4) if index in chosen.sae.cards else None,
    }


def _tokens(chosen: ChosenSAE, dense: NDArray[np.float32], tokens: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for at, token in enumerate(tokens):
        best = np.argsort(-dense[at], kind="stable")[: min(_PER_TOKEN, chosen.sae.d_sae)]
        active = [[int(index), round(float(dense[at, index]), 4)] for index in best if dense[at, index] > 0]
        rows.append({"position": at, "token": token, "features": active})
    return rows


def _lines(
    model: Target, chosen: ChosenSAE, rows: Sequence[dict[str, Any]], tokens: Sequence[str], at: int | None
) -> Iterator[str]:
    where = f"{len(tokens)} tokens" if at is None else f"position {at} ({model.quote(tokens[at], limit=30)})"
    yield f"{chosen.sae.architecture} SAE with {chosen.sae.d_sae} features at {chosen.site}, {where}"
    if not rows:
        yield "no feature is active"
    for row in rows:
        line = f"feature {row['feature']}: {row['activation']:.3g}"
        if at is None:
            strongest = f"position {row['position']} ({model.quote(row['token'], limit=30)})"
            line += f" at {strongest}, on {row['share_of_tokens']:.0%} of the tokens"
        if row["density"] is not None:
            line += f" (usually on {row['density']:.1%})"
        yield f"{line}; {feature_label(chosen.sae, row['feature'], model.quote)}"
