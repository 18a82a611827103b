"""Find features by words in their explanations and on their cards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Text, Words
from marple.tools.contract import ToolResult, tool
from marple.tools.saes.reading import ChosenSAE, card_data, choose_sae, feature_label
from marple.tools.saes.sae import SAE
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["sae_search"]

_WORD = re.compile(r"\w+")
_EFFECT_FULL = 6.0
"""A logit effect of so many standard deviations counts as much as an explanation that holds the word."""


def _self_test() -> None:
    import dataclasses

    from marple.tools.saes.activations import collect_activations
    from marple.tools.saes.cards import make_cards
    from marple.tools.saes.explanations import Explanation
    from marple.tools.saes.planted import planted_target

    target = planted_target(["lamp", "chair", "river", "stone"])
    sae = target.saes["planted"]
    read = collect_activations(target, [target.encode("red lamp and a chair"), target.encode("old river")], sae.site)
    named = {3: (Explanation("things made of rock", "a person"),)}
    target.saes = {"planted": dataclasses.replace(sae, cards=make_cards(sae, target, read), explanations=named)}
    for words, expected in ((["river"], 2), (["rock"], 3)):
        rows = sae_search(target, seed=0, words=words).data["features"]
        assert rows, f"{words} finds nothing"
        assert rows[0]["feature"] == expected, f"{words} should find feature {expected}, found {rows[0]['feature']}"


@tool(rung=3, parallel=True, needs=("sae",), self_test=_self_test)
def sae_search(
    target: Target,
    *,
    seed: int,
    words: Words,
    top: Annotated[int, Field(ge=1, le=200)] = 20,
    sae: Text | None = None,
) -> ToolResult:
    """Find features by words: in explanations, among the tokens they fire on, and among the tokens they promote.

    Nothing is run on the model. A match says what somebody wrote or where a feature fired on the card's texts; whether
    it means the word is for sae_lookup and sae_steer to show. Explanations are untrusted text.

    Control: how many features match at all, out of how many that have a card or an explanation.

    Args:
        words: words to look for, in any case; each also matches as the beginning of a longer word.
        top: how many features.
        sae: name of the SAE, needed where several are loaded.

    Returns:
        Features by match, and in which of the three the words were found.

    Example:
        {"words": ["lamp", "price"]}
    """
    chosen = choose_sae(target, sae)
    known = sorted({*chosen.sae.cards, *chosen.sae.explanations})
    if not known:
        raise ToolError(
            f"{chosen.name} has neither cards nor explanations to search; use sae_features on a text about "
            f'"{words[0]}", or sae_lookup'
        )
    scored = [(_matches(chosen.sae, index, words), index) for index in known]
    found = sorted(((sum(match.values()), index, match) for match, index in scored if match), key=lambda it: -it[0])
    rows = [_row(chosen, score, index, match) for score, index, match in found[:top]]
    return ToolResult(
        text=fit_lines(_lines(target, chosen, rows, len(found), len(known))),
        data={"sae": chosen.name, "site": str(chosen.site), "features": rows},
        controls={"matching": len(found), "searchable": len(known), "features": chosen.sae.d_sae},
    )


def _matches(sae: SAE, index: int, words: Sequence[str]) -> dict[str, float]:
    """Points by where the words were found; each of the three gives at most one point a word."""
    points = {"explanation": 0.0, "fires_on": 0.0, "promotes": 0.0}
    card = sae.cards.get(index)
    for word in words:
        if any(_holds(label.text, word) for label in sae.explanations.get(index, ())):
            points["explanation"] += 1
        if card is not None:
            points["fires_on"] += sum(share for token, share in card.tokens if _holds(token, word))
            promoted = max((z for token, z in card.raises if _holds(token, word)), default=0.0)
            points["promotes"] += min(1.0, promoted / _EFFECT_FULL)
    return {where: round(value, 3) for where, value in points.items() if value > 0}


def _holds(text: str, word: str) -> bool:
    wanted = _WORD.findall(word.casefold()) or [word.casefold().strip()]
    there = _WORD.findall(text.casefold()) or [text.casefold().strip()]
    return all(any(one.startswith(each) for one in there) for each in wanted)


def _row(chosen: ChosenSAE, score: float, index: int, match: dict[str, float]) -> dict[str, Any]:
    return {**card_data(chosen.sae, index), "match": round(score, 3), "found_in": match}


def _lines(target: Target, chosen: ChosenSAE, rows: Sequence[dict[str, Any]], found: int, known: int) -> Iterator[str]:
    yield f"{found} of {known} features with a card or an explanation match, of {chosen.sae.d_sae} at {chosen.site}"
    for row in rows:
        where = ", ".join(f"{place.replace('_', ' ')} {points:.2f}" for place, points in row["found_in"].items())
        label = feature_label(chosen.sae, row["feature"], target.quote)
        yield f"feature {row['feature']} (match {row['match']:.2f}: {where}); {label}"
