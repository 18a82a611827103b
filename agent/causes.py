"""What activations show of a word that a script has found: in words, and as claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marple.agent.effects import own_effect
from marple.agent.investigator import Done
from marple.agent.stating import at_least_halfway, claim

__all__ = ["claims_on_activations", "what_activations_show"]


def what_activations_show(done: Sequence[Done], word: str) -> str:
    """The steering of the reference by the mean difference, and the features that rose, as parts of a sentence."""
    said = ""
    data = {one.tool: one.data for one in done if one.ok}
    for steered in data.get("diff_activations", {}).get("steering", []):
        verdict = "more than" if steered["outside_controls"] else "no more than"
        said += (
            f"; the mean activation difference after layer {steered['layer']} closes {steered['closed']:.0%} "
            f"of the gap to the target, {verdict} random vectors do"
        )
    if "sae_compare" in data:
        risen = [row["token"].strip().casefold() for row in data["sae_compare"]["promoted_together"]["risen"]]
        place = f"number {risen.index(word) + 1}" if word in risen else "not"
        said += f"; among the tokens that the risen features promote together it is {place}"
    return said


def claims_on_activations(done: Sequence[Done], word: str) -> list[dict[str, Any]]:
    """A claim for each of the two that shows the word at work."""
    claims = []
    for one in done:
        if one.tool == "sae_compare" and one.ok and own_effect(one.data, word) is not None:
            claims.append(claim(f"the features that rose promote {word} together", 0.8, [one.id], {}))
        elif one.tool == "diff_activations" and (shows := at_least_halfway(one, {"number": "closed"})):
            statement = f"the mean activation difference makes the reference say {word}, as no random vector does"
            claims.append(claim(statement, 0.7, [one.id], shows))
    return claims
