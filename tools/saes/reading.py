"""What the SAE tools share: which SAE is meant, what a feature is called, how texts are read with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from marple.errors import ToolError
from marple.tools.calls import note
from marple.tools.engine.sites import Site
from marple.tools.saes.evaluation import Reconstruction, reconstruction
from marple.tools.saes.sae import SAE
from marple.tools.target.target import Target

__all__ = ["ChosenSAE", "FeatureList", "card_data", "check_explained", "choose_sae", "feature_label", "short_label"]

_POOR_FVU = 0.5

FeatureList = Annotated[list[int], Field(min_length=1, max_length=50)]
"""Feature indices, from 0."""


@dataclass(frozen=True)
class ChosenSAE:
    """The SAE a call uses."""

    name: str
    sae: SAE
    site: Site


def choose_sae(target: Target, name: str | None) -> ChosenSAE:
    """The SAE of that name, or the only one.

    Raises:
        ToolError: there is none, several and no name, or it belongs to another model.
    """
    there = target.saes
    if name is None and len(there) != 1:
        raise ToolError(f"sae is not given and there are {len(there)}: {', '.join(there) or 'none'}; name one of them")
    chosen = next(iter(there)) if name is None else name
    if chosen not in there:
        example = f', for example "sae": "{next(iter(there))}"' if there else ""
        raise ToolError(f'sae "{chosen[:80]}" is not loaded; there are: {", ".join(there) or "none"}{example}')
    sae: SAE = there[chosen]
    return ChosenSAE(chosen, sae, sae.check_fits(target))


def feature_label(sae: SAE, index: int, quote: Callable[..., str]) -> str:
    """A feature's name for a line of text: its explanation if it has one, else the tokens it fires on and raises.

    Explanations and tokens are untrusted text, so they are quoted.
    """
    if index in sae.explanations:
        label = sae.explanations[index][0]
        by = f" by {quote(label.source, limit=40)}" if label.source else ""
        return f"explained{by} as {quote(label.text, limit=120)}"
    if index not in sae.cards:
        return "no explanation"
    card = sae.cards[index]
    if not card.tokens:
        return "never active on the texts of its card"
    fires = " ".join(f"{quote(token, limit=20)} {share:.0%}" for token, share in card.tokens[:3])
    raises = " ".join(quote(token, limit=20) for token, _ in card.raises[:3])
    return f"fires on {fires}; raises {raises}"


def short_label(sae: SAE, index: int) -> str:
    """A feature's number, what it fires on and what it raises, for an axis; untrusted: pass it to ``plots.visible``."""
    if index in sae.explanations:
        return f"{index} {sae.explanations[index][0].text}"
    card = sae.cards.get(index)
    if card is None or not card.tokens:
        return str(index)
    return f"{index} on {card.tokens[0][0].strip()}, raises {card.raises[0][0].strip()}"


def card_data(sae: SAE, index: int) -> dict[str, Any]:
    """What is stored of a feature, as JSON values: explanations, density, tokens."""
    card = sae.cards.get(index)
    return {
        "feature": index,
        "explanations": [{"text": one.text, "source": one.source} for one in sae.explanations.get(index, ())],
        "density": card.density if card else None,
        "tokens": [list(pair) for pair in card.tokens] if card else None,
        "promotes": [list(pair) for pair in card.raises] if card else None,
    }


def check_explained(chosen: ChosenSAE, rows: Sequence[Tensor]) -> Reconstruction:
    """How well the SAE reconstructs the very activations that are read, with a note where it does not.

    An SAE that explains little of them, because they are unlike its training texts or another model's, has features
    that mean little on them.
    """
    found = reconstruction(chosen.sae, torch.cat([one.reshape(-1, one.shape[-1]) for one in rows]))
    if found.tokens > 1 and found.fvu > _POOR_FVU:
        note(
            f"this SAE leaves {found.fvu:.0%} of the variance of these activations unexplained: its features say "
            "little about them"
        )
    return found
