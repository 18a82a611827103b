"""Steer with a direction and with its controls over a range of scales, in one batched call, and judge the effect.

After activation addition (Turner et al. 2023) and contrastive activation addition (Panickssery et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marple.errors import ToolError
from marple.tools.arguments import sample_seed
from marple.tools.contract import Cost
from marple.tools.engine.interventions import Intervention, Phase
from marple.tools.engine.sites import Site
from marple.tools.replies import Sampling
from marple.tools.steering.controls import activation_spread
from marple.tools.steering.doses import EFFECT, Dose, DoseResponse
from marple.tools.steering.fluency import Fluency, measure_fluency
from marple.tools.steering.intervals import mean_interval
from marple.tools.steering.measuring import Replies, measure
from marple.tools.steering.outcomes import Continuations, Outcome, OwnWords, Projection
from marple.tools.steering.verdict import judge
from marple.tools.target.target import Completion, Target

__all__ = ["EFFECT", "Dose", "DoseResponse", "dose_response"]


def dose_response(
    target: Target,
    prompts: Sequence[Sequence[int]],
    *,
    site: Site,
    effect: Tensor,
    controls: Mapping[str, Tensor],
    scales: Sequence[float],
    outcome: Outcome,
    sampling: Sampling,
    seed: int,
    unit: float | None = None,
    phases: tuple[Phase, ...] = ("prompt", "generation"),
    margin: float = 1.5,
) -> DoseResponse:
    """Add ``scale * unit`` times each unit direction to the activations at a site, and measure what comes of it.

    Unsteered, effect and controls share prompts, samples and seeds, and all run in one call of the engine. Every
    direction is scaled to the same length. Every reply is scored under the unsteered model: a scale at which replies
    cost more than ``margin`` nats per token above the unsteered, repeat themselves or stay empty is not fluent and no
    evidence.

    Args:
        target: the model.
        prompts: token ids of each prompt.
        site: where to add.
        effect: the direction under test, shape ``(d_model,)``, of any length but 0.
        controls: name to direction; see ``marple.tools.steering.controls.make_controls``.
        scales: doses, not 0, in units of ``unit``; negative ones subtract.
        outcome: what is measured.
        sampling: how replies are drawn; sample ``j`` of prompt ``i`` has the same seed under every direction.
        seed: of the call.
        unit: length of what is added at scale 1, in the activations' units; None: the median distance of the
            activations from their mean at this site.
        phases: which tokens are steered.
        margin: nats per token.

    Raises:
        ToolError: a direction has another width, is 0 or not finite; a scale is 0, not finite or given twice; there are
            fewer than two prompts; or the outcome cannot be measured.
    """
    directions = {EFFECT: effect, **controls}
    _check(target, prompts, directions, scales)
    length = activation_spread(target, prompts, site=site) if unit is None else unit
    arms = [
        (Intervention(site=site, vector=length * vector.float() / vector.float().norm(), scale=scale, phases=phases),)
        for vector in directions.values()
        for scale in scales
    ]
    replies = _generate(target, prompts, [(), *arms], sampling, outcome, seed=seed)
    fluencies, scored = _fluencies(target, prompts, replies)
    problems = [one.problem(fluencies[0], margin=margin) for one in fluencies[1:]]
    fluent = np.array([not problem for problem in problems]).reshape(len(directions), len(scales))
    shares = not isinstance(outcome, (Continuations, Projection))
    found = measure(
        target, prompts, [(), *arms], replies, outcome, directions=list(directions), scales=scales, fluent=fluent
    )
    changes = (found.steered - found.unsteered).reshape(len(directions), len(scales), len(prompts))
    unsteered = _dose("unsteered", 0.0, found.unsteered[int(np.argmax(scales))], fluencies[0], "", replies[0], shares)
    doses = [
        _dose(name, scale, found.steered[at], fluencies[at + 1], problems[at], replies[at + 1], shares)
        for at, (name, scale) in enumerate((name, scale) for name in directions for scale in scales)
    ]
    return DoseResponse(
        site=site,
        unit=length,
        scales=tuple(scales),
        unsteered=unsteered,
        doses=tuple(doses),
        verdict=judge(
            changes,
            scales=scales,
            fluent=fluent,
            shares=shares,
            senses=(1,) if isinstance(outcome, OwnWords) else (1, -1),
        ),
        own_words=found.own_words,
        margin=margin,
        cost=_cost(replies) + scored + found.cost,
    )


def _check(
    target: Target, prompts: Sequence[Sequence[int]], directions: Mapping[str, Tensor], scales: Sequence[float]
) -> None:
    if len(prompts) < 2:
        raise ToolError(
            f"{len(prompts)} prompts to steer on; give at least 2, better 8 or more: the prompt is the unit"
        )
    bad = [scale for scale in scales if scale == 0 or not np.isfinite(scale)]
    if not scales or bad or len(set(scales)) < len(scales):
        raise ToolError(
            f"scales is {list(scales)}; give different finite numbers other than 0, such as [-0.4, 0.2, 0.4]"
        )
    for name, vector in directions.items():
        if tuple(vector.shape) != (target.d_model,):
            raise ToolError(
                f"direction {name!r} has shape {tuple(vector.shape)}; the target's activations have ({target.d_model},)"
            )
        if not bool(torch.isfinite(vector).all()) or float(vector.float().norm()) == 0:
            raise ToolError(f"direction {name!r} is 0, NaN or infinite; give a finite vector with a length")


def _generate(
    target: Target,
    prompts: Sequence[Sequence[int]],
    arms: Sequence[tuple[Intervention, ...]],
    sampling: Sampling,
    outcome: Outcome,
    *,
    seed: int,
) -> list[list[list[Completion]]]:
    """Replies by arm, prompt and sample, in one call."""
    count = sampling.samples * (2 if isinstance(outcome, OwnWords) else 1)
    each = [(row, sample) for row in range(len(prompts)) for sample in range(count)]
    seeds = [sample_seed(seed, "steered", row, sample) for row, sample in each]
    made = target.generate(
        [prompts[row] for _ in arms for row, _ in each],
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seeds=seeds * len(arms),
        interventions=[arm for arm in arms for _ in each],
    )
    rows = [made[at : at + count] for at in range(0, len(made), count)]
    return [rows[at : at + len(prompts)] for at in range(0, len(rows), len(prompts))]


def _fluencies(
    target: Target,
    prompts: Sequence[Sequence[int]],
    replies: Replies,
) -> tuple[list[Fluency], Cost]:
    flat = [
        (prompt, reply.tokens) for arm in replies for prompt, row in zip(prompts, arm, strict=True) for reply in row
    ]
    scores = target.score(flat)
    each = len(flat) // len(replies)
    cost = Cost(prompt_tokens=sum(len(prompt) + len(tokens) for prompt, tokens in flat))
    found = [
        measure_fluency([tokens for _, tokens in flat[at : at + each]], scores[at : at + each])
        for at in range(0, len(flat), each)
    ]
    return found, cost


def _dose(
    name: str,
    scale: float,
    values: NDArray[np.float64],
    fluency: Fluency,
    problem: str,
    replies: Sequence[Sequence[Completion]],
    shares: bool,
) -> Dose:
    mean, low, high = mean_interval(values, shares=0.5 if shares else 0.0)
    return Dose(name, scale, mean, low, high, fluency, problem, replies[0][0].text)


def _cost(replies: Replies) -> Cost:
    every = [reply for arm in replies for row in arm for reply in row]
    return Cost(sum(reply.prompt_tokens for reply in every), sum(len(reply.tokens) for reply in every))
