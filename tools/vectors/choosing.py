"""The direction an experiment is about: extracted from a contrast, kept under a handle, or a feature of an SAE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from marple.errors import ToolError
from marple.tools.contract import Cost
from marple.tools.engine.sites import Site
from marple.tools.saes.reading import choose_sae
from marple.tools.target.target import Target
from marple.tools.vectors.contrast_sets import ContrastText, Reading, check_sets, encode_texts, read_states
from marple.tools.vectors.extraction import Extraction, extract
from marple.tools.vectors.vector import Vector, kept_direction

__all__ = ["Chosen", "Contrast", "choose_direction", "decoder_vector", "extract_vector"]


@dataclass(frozen=True)
class Contrast:
    """How a direction is to be extracted."""

    positive: Sequence[ContrastText]
    negative: Sequence[ContrastText]
    method: Extraction
    reading: Reading
    chat: bool
    system: str | None


@dataclass(frozen=True)
class Chosen:
    """The direction, and what is known of it."""

    vector: Vector
    told: str
    """Where it comes from, in words."""
    agreement: float | None = None
    """Cosine of the directions of the first and the second half of a contrast's texts; None without a contrast."""
    cost: Cost = Cost()


def choose_direction(
    target: Target,
    *,
    site: Site | None,
    contrast: Contrast | None = None,
    handle: str | None = None,
    feature: int | None = None,
    sae: str | None = None,
) -> Chosen:
    """The direction that a call names in one of three ways.

    Args:
        target: the model.
        site: where it is applied; None: where the handle or the SAE says, and in the middle for a contrast.
        contrast: two sets of texts.
        handle: of a vector or a probe.
        feature: index of an SAE's feature, whose decoder row is meant.
        sae: its name; may be left out if there is only one.

    Raises:
        ToolError: not exactly one way is given, or what is named does not exist or fit.
    """
    if sum(given is not None for given in (contrast, handle, feature)) != 1:
        raise ToolError(
            "give one direction: either positive and negative texts, or the handle of a vector or probe, or an SAE's "
            'feature; for example "positive": ["I love it", "It is great"], "negative": ["I hate it", "It is awful"]'
        )
    if contrast is not None:
        return extract_vector(target, contrast, site=site or target.site("resid_post", (target.layers - 1) // 2))
    if handle is not None:
        vector, _ = kept_direction(target, handle)
        return Chosen(_moved(vector, site), f"{vector.method} {handle}")
    assert feature is not None
    vector = decoder_vector(target, feature, sae=sae)
    return Chosen(_moved(vector, site), f"decoder row of feature {feature} of SAE {vector.source['sae']}")


def extract_vector(target: Target, contrast: Contrast, *, site: Site) -> Chosen:
    """The direction from the negative to the positive texts at a site.

    Raises:
        ToolError: a set is too small, a text stands in both, or the sets do not differ there.
    """
    check_sets(contrast.positive, contrast.negative)
    texts = [*contrast.positive, *contrast.negative]
    prompts = encode_texts(target, texts, chat=contrast.chat, system=contrast.system)
    states = read_states(target, prompts, [site], reading=contrast.reading)[site]
    count = len(contrast.positive)
    positive, negative = states[:count], states[count:]
    source = {"positive": count, "negative": len(negative), "reading": contrast.reading}
    vector = Vector(site, extract(contrast.method, positive, negative), contrast.method, source)
    halves = [positive[at::2].mean(dim=0) - negative[at::2].mean(dim=0) for at in (0, 1)]
    agreement = float(torch.nn.functional.cosine_similarity(halves[0], halves[1], dim=0))
    told = f"{contrast.method} of {count} positive and {len(negative)} negative texts, {contrast.reading} token"
    return Chosen(vector, told, agreement, Cost(prompt_tokens=sum(map(len, prompts))))


def decoder_vector(target: Target, feature: int, *, sae: str | None) -> Vector:
    """An SAE feature's decoder row as a direction at the SAE's site.

    Raises:
        ToolError: there is no such SAE or feature, or it belongs to another model.
    """
    chosen = choose_sae(target, sae)
    count = chosen.sae.d_sae
    if not 0 <= feature < count:
        raise ToolError(
            f"feature {feature} does not exist; SAE {chosen.name!r} has features 0 to {count - 1}, for example 0"
        )
    source = {"sae": chosen.name, "feature": feature}
    return Vector(chosen.site, chosen.sae.weights.W_dec[feature], "sae_decoder", source)


def _moved(vector: Vector, site: Site | None) -> Vector:
    return vector if site is None else Vector(site, vector.direction, vector.method, vector.source)
