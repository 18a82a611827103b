"""What is known of features: where they fire, what they do to the logits, what others say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from marple.tools.arguments import Model, Prompts, Text, choose_model, one_turn, sample_seed
from marple.tools.contract import Artifact, Cost, ToolResult, tool
from marple.tools.lenses import lens_of_directions
from marple.tools.plots import CONTROL, TARGET, figure, plot_artifact, visible
from marple.tools.prompt_tokens import fits_context
from marple.tools.saes.activations import collect_activations
from marple.tools.saes.cards import Card, make_cards
from marple.tools.saes.effects import logit_effect
from marple.tools.saes.reading import ChosenSAE, FeatureList, card_data, check_explained, choose_sae, feature_label
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["sae_lookup"]

_RANDOM = 100
_NEAREST = 5


def _self_test() -> None:
    from marple.tools.saes.planted import planted_target

    target = planted_target(["lamp", "chair", "river", "stone"], where="head")
    row = sae_lookup(target, seed=0, features=[2]).data["features"][0]
    assert row["promotes"][0][0].strip() == "river", f"feature 2 raises the river, found {row['promotes'][:3]}"
    assert row["logit_effect"] > row["random_directions_p95"]
    target = planted_target(["lamp", "chair", "river", "stone"])
    texts = ["red lamp", "old lamp", "blue river", "say yes"]
    card = sae_lookup(target, seed=0, features=[0], texts=texts, chat=False).data["features"][0]["on_texts"]
    assert [example["token"].strip() for example in card["examples"]] == ["lamp", "lamp"]
    assert abs(card["density"] - 2 / 8) < 1e-9


@tool(rung=3, parallel=True, needs=("sae",), self_test=_self_test)
def sae_lookup(
    target: Target,
    *,
    seed: int,
    features: FeatureList,
    texts: Prompts | None = None,
    chat: bool = True,
    on: Model = "target",
    sae: Text | None = None,
) -> ToolResult:
    """Look features up: explanation, top examples, density, logit effect of the decoder row, nearest other features.

    Stored examples are from the texts the SAE was described on. With texts the same is measured on your own: an
    explanation that does not hold there is not to be trusted. Explanations are others' untrusted claims.

    Controls: the logit effect beside random directions (a decoder row whose strongest token does not exceed theirs does
    nothing in particular to the output), and a random other feature's density on the same texts.

    Args:
        features: which, from 0.
        texts: user messages, or raw texts with chat false, to look for examples in.
        chat: whether texts are user messages.
        on: which model reads the texts.
        sae: name of the SAE, needed where several are loaded.

    Returns:
        For each feature its card, its explanations, the tokens it promotes and suppresses in standard deviations over
        the vocabulary, the nearest features by cosine of decoder rows; the same measured on the texts given.

    Example:
        {"features": [12, 40], "texts": ["Which lamp should I buy?", "What is the weather like?"]}
    """
    chosen, model = choose_sae(target, sae), choose_model(target, on)
    wanted = list(dict.fromkeys(chosen.sae.check_feature(index) for index in features))
    effects = logit_effect(chosen.sae, model, wanted, count=8)
    bound = _random_effect(model, seed)
    rows: list[dict[str, Any]] = []
    for index, (promotes, suppresses) in zip(wanted, effects, strict=True):
        stored = chosen.sae.cards.get(index)
        rows.append(
            {
                **card_data(chosen.sae, index),
                "promotes": [list(pair) for pair in promotes],
                "suppresses": [list(pair) for pair in suppresses],
                "logit_effect": promotes[0][1],
                "random_directions_p95": round(bound, 3),
                "nearest": _nearest(chosen, index),
                "card": asdict(stored) if stored else None,
            }
        )
    controls: dict[str, Any] = {"random_directions": {"count": _RANDOM, "logit_effect_p95": round(bound, 3)}}
    cost = Cost()
    if texts is not None:
        cost = _measure(model, chosen, texts, rows, controls, chat=chat, seed=seed)
    return ToolResult(
        text=fit_lines(line for row in rows for line in _lines(model, chosen, row)),
        data={"sae": chosen.name, "site": str(chosen.site), "features": rows},
        artifacts=(_plot(rows[0], bound),),
        controls=controls,
        cost=cost,
    )


def _random_effect(model: Target, seed: int) -> float:
    """95th percentile of the strongest token's logit, in standard deviations, over random directions."""
    generator = torch.Generator().manual_seed(sample_seed(seed, "directions"))
    directions = torch.randn(_RANDOM, model.d_model, generator=generator)
    return float(lens_of_directions(model, directions).amax(-1).quantile(0.95))


def _nearest(chosen: ChosenSAE, index: int) -> list[list[float]]:
    rows = torch.nn.functional.normalize(chosen.sae.weights.W_dec, dim=1)
    cosine = (rows @ rows[index]).cpu()
    cosine[index] = -2
    values, others = cosine.topk(min(_NEAREST, len(cosine) - 1))
    return [[int(other), round(float(value), 3)] for other, value in zip(others, values, strict=True)]


def _measure(
    model: Target,
    chosen: ChosenSAE,
    texts: Sequence[str],
    rows: Sequence[dict[str, Any]],
    controls: dict[str, Any],
    *,
    chat: bool,
    seed: int,
) -> Cost:
    """Cards on these texts, put into the rows; and of a random other feature, into the controls."""
    ids = [fits_context(model, model.render(one_turn(one)) if chat else model.encode(one)) for one in texts]
    activations = collect_activations(model, ids, chosen.site)
    wanted = [row["feature"] for row in rows]
    others = [index for index in range(chosen.sae.d_sae) if index not in wanted] or wanted
    other = others[sample_seed(seed, "other") % len(others)]
    cards = make_cards(chosen.sae, model, activations, features=[*wanted, other], examples=5)
    for row in rows:
        row["on_texts"] = asdict(cards[row["feature"]])
    controls["random_other_feature"] = {"feature": other, "density": cards[other].density}
    explained = check_explained(chosen, [activations.values])
    controls["reconstruction"] = {"fvu": explained.fvu, "l0": explained.l0, "tokens": explained.tokens}
    return Cost(prompt_tokens=sum(map(len, ids)))


def _lines(model: Target, chosen: ChosenSAE, row: dict[str, Any]) -> Iterator[str]:
    quote, index = model.quote, row["feature"]
    yield f"feature {index} at {chosen.site}: {feature_label(chosen.sae, index, quote)}"
    for label in row["explanations"][1:4]:
        yield f"  also explained ({quote(label['source'] or 'unknown source')}) as {quote(label['text'], limit=120)}"
    told = "exceeds" if row["logit_effect"] > row["random_directions_p95"] else "does not exceed"
    raised = " ".join(f"{quote(token, limit=20)} {z:+.1f}" for token, z in row["promotes"][:6])
    yield f"  promotes {raised}; its strongest {told} random directions' ({row['random_directions_p95']:.1f})"
    yield "  suppresses " + " ".join(f"{quote(token, limit=20)} {z:+.1f}" for token, z in row["suppresses"][:4])
    if stored := chosen.sae.cards.get(index):
        yield from _card_lines(model, stored, "on its card's texts")
    if "on_texts" in row:
        yield from _card_lines(
            model, Card(**{**row["on_texts"], "examples": ()}), "on the texts given", row["on_texts"]
        )
    yield "  nearest features by decoder cosine: " + ", ".join(f"{other} ({cos:.2f})" for other, cos in row["nearest"])


def _card_lines(model: Target, card: Card, where: str, told: dict[str, Any] | None = None) -> Iterator[str]:
    yield (
        f"  {where}: active on {card.density:.2%} of the tokens, there {card.mean:.3g} in the mean and "
        f"{card.maximum:.3g} at most"
    )
    examples = told["examples"] if told else [asdict(example) for example in card.examples]
    for one in examples[:4]:
        before, token, after = (model.quote(one[key], limit=90) for key in ("before", "token", "after"))
        yield f"    {one['activation']:.3g} at {token}, after {before}, before {after}"


def _plot(row: dict[str, Any], bound: float) -> Artifact:
    pairs = [*row["promotes"], *reversed(row["suppresses"])][::-1]
    with figure(5.5, 1.4 + 0.22 * len(pairs)) as (made, (axes,)):
        axes.barh(range(len(pairs)), [z for _, z in pairs], color=TARGET)
        axes.set_yticks(range(len(pairs)), [visible(token) for token, _ in pairs], fontsize=8)
        axes.axvspan(-bound, bound, color=CONTROL, alpha=0.25, linewidth=0, label="random directions' strongest (95 %)")
        axes.set(xlabel="logit effect (standard deviations over the vocabulary)", title=f"feature {row['feature']}")
        axes.legend(loc="best")
        return plot_artifact("sae_lookup", made)
