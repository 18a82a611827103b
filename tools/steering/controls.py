"""Directions that mean nothing, as long as the one under test."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.arguments import one_turn, sample_seed
from marple.tools.contract import Cost
from marple.tools.engine.sites import Site
from marple.tools.target.target import Target

__all__ = [
    "UNRELATED_PAIRS",
    "activation_spread",
    "control_cost",
    "make_controls",
    "random_direction",
    "unrelated_direction",
]

UNRELATED_PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "tense": (
        ("I walked to the river yesterday.", "I walk to the river every day."),
        ("She opened the old box.", "She opens the old box."),
        ("They painted the door green.", "They paint the door green."),
        ("He waited for the bus.", "He waits for the bus."),
        ("We cooked rice for lunch.", "We cook rice for lunch."),
        ("The dog jumped over the wall.", "The dog jumps over the wall."),
    ),
    "number": (
        ("Where did the cats go?", "Where did the cat go?"),
        ("The books are on the shelf.", "The book is on the shelf."),
        ("My cousins live by the sea.", "My cousin lives by the sea."),
        ("These apples are ripe.", "This apple is ripe."),
        ("The windows were open.", "The window was open."),
        ("Can you see the boats?", "Can you see the boat?"),
    ),
}
"""Contrasts without a bearing on any behaviour: whichever the effect is about, it is not grammar."""

_MOST_PROMPTS = 32


def make_controls(
    target: Target,
    prompts: Sequence[Sequence[int]],
    *,
    site: Site,
    seed: int,
    random: int = 3,
    norm_matched: int = 2,
    unrelated: bool = True,
) -> dict[str, Tensor]:
    """Unit directions to steer with beside the effect, by name.

    Args:
        target: the model.
        prompts: token ids of the prompts that are steered.
        site: where.
        seed: of the draws.
        random: isotropic Gaussian directions, ``random 1`` and so on.
        norm_matched: directions drawn with the covariance of the activations at this site, ``norm-matched 1`` and so
            on: unlike isotropic ones they move the activations along axes that the model uses, by the same length.
        unrelated: whether to add the differences of means of ``UNRELATED_PAIRS``.

    Returns:
        Name to a unit vector ``(d_model,)``, float32.
    """
    controls = {
        f"random {at + 1}": random_direction(target.d_model, seed=sample_seed(seed, "random", at))
        for at in range(random)
    }
    if unrelated:
        for name in UNRELATED_PAIRS:
            controls[f"unrelated pairs ({name})"] = unrelated_direction(target, name, site=site)
    if norm_matched:
        cloud = torch.cat(target.capture(list(prompts)[:_MOST_PROMPTS], [site], positions="all")[site])
        cloud = cloud - cloud.mean(dim=0)
        for at in range(norm_matched):
            mixture = _normal(len(cloud), seed=sample_seed(seed, "norm-matched", at)) @ cloud
            controls[f"norm-matched {at + 1}"] = _unit(mixture)
    return controls


def control_cost(target: Target, prompts: Sequence[Sequence[int]]) -> Cost:
    """Tokens that ``make_controls`` with its defaults, and the unit of the doses, read."""
    unrelated = [text for pairs in UNRELATED_PAIRS.values() for pair in pairs for text in pair]
    read = sum(len(target.render(one_turn(text))) for text in unrelated)
    return Cost(prompt_tokens=read + 2 * sum(map(len, list(prompts)[:_MOST_PROMPTS])))


def random_direction(width: int, *, seed: int) -> Tensor:
    """A direction uniform on the sphere, shape ``(width,)``."""
    return _unit(_normal(width, seed=seed))


def unrelated_direction(target: Target, name: str, *, site: Site) -> Tensor:
    """The difference of means of a contrast in ``UNRELATED_PAIRS`` at the last prompt token, as a unit vector."""
    pairs = UNRELATED_PAIRS[name]
    prompts = [target.render(one_turn(text)) for side in (0, 1) for text in (pair[side] for pair in pairs)]
    states = torch.stack(target.capture(prompts, [site], positions="last", mean=False)[site])
    difference = states[: len(pairs)].mean(dim=0) - states[len(pairs) :].mean(dim=0)
    if float(difference.norm()) == 0:
        # At the embedding of a fixed last token every prompt looks the same.
        return random_direction(target.d_model, seed=sample_seed(0, "unrelated", name))
    return _unit(difference)


def activation_spread(target: Target, prompts: Sequence[Sequence[int]], *, site: Site) -> float:
    """The median distance of the prompts' activations from their mean at a site, their first tokens left out.

    The first token of a text, and a few dimensions at every token, often carry activations that are a hundred times
    larger than all others and always the same (Sun et al. 2024); both would hide how far the activations really move.

    Raises:
        ToolError: the activations are not finite, or all the same.
    """
    states = target.capture(list(prompts)[:_MOST_PROMPTS], [site], positions="all")[site]
    cloud = torch.cat([one[1:] if len(one) > 1 else one for one in states])
    found = float((cloud - cloud.mean(dim=0)).norm(dim=-1).median())
    if not 0 < found < float("inf"):
        raise ToolError(
            f"the activations at {site} lie {found} from their mean, so no dose can be given in units of that; take "
            "another layer"
        )
    return found


def _normal(count: int, *, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm().clamp(min=1e-12)
    return unit
