"""Which features of a sparse autoencoder differ between two sets of prompts, or between target and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Model, Text, choose_model, sample_seed
from marple.tools.contract import Cost, ToolResult, tool
from marple.tools.diffing.passages import Read, passages_of_prompts, passages_of_replies
from marple.tools.diffing.reading import check_comparable
from marple.tools.prompt_tokens import encode_pair
from marple.tools.saes.comparison import LEAST_PROMPTS, compare_pairs, compare_sets
from marple.tools.saes.comparison_report import ComparisonReport
from marple.tools.saes.pooling import Pool, Pooled, align, pool_features
from marple.tools.saes.reading import ChosenSAE, choose_sae
from marple.tools.target.target import Target

__all__ = ["sae_compare"]

PromptSet = Annotated[list[Text], Field(min_length=1, max_length=2000)]


def _self_test() -> None:
    from marple.tools.saes.planted import planted_target

    target = planted_target(["lamp", "chair", "river", "stone"])
    lamps = [f"{one} lamp" for one in ("red", "green", "blue", "old", "new", "good")]
    chairs = [one.replace("lamp", "chair") for one in lamps]
    result = sae_compare(target, seed=0, first=lamps, second=chairs, chat=False, read="all")
    found = {row["feature"]: row["score"] for row in result.data["rows"] if row["found"]}
    assert set(found) == {0, 1}, f"the planted features are 0 and 1, found {sorted(found)}"
    assert found[0] > 0 > found[1]
    same = sae_compare(target, seed=0, first=lamps, second=lamps, chat=False, read="all")
    assert not any(row["found"] for row in same.data["rows"]), "a set differs from itself"


@tool(rung=3, parallel=True, needs=("sae",), self_test=_self_test)
def sae_compare(
    target: Target,
    *,
    seed: int,
    first: PromptSet,
    second: PromptSet | None = None,
    system: Text | None = None,
    second_system: Text | None = None,
    prefill: Text | None = None,
    chat: bool = True,
    read: Read = "last",
    pool: Pool = "mean",
    on: Model = "target",
    sae: Text | None = None,
    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 24,
) -> ToolResult:
    """Find the SAE features that differ between two sets of prompts, or between target and reference on the same ones.

    With second it compares the sets on one model; without, target and reference on first (model diffing by SAE, after
    Bricken et al. 2024). The prompt is the unit and the score a moderated t. A feature is found if its score exceeds
    the 95th percentile of the largest score under shuffled labels, and q is at most 0.05. Features tell what a token is
    and what comes next, so the place matters: to learn what a model has come to say, read replies, or let prefill begin
    one and read its last token. Then look at the tokens which the risen features promote together: single features are
    often about form.

    Controls: shuffled labels; half of first against its other half; whether both halves of the data agree; the same
    contrast on the reference; how well the SAE reconstructs these activations. Baseline: the lens on the raw
    difference of mean activations, without the SAE.

    Args:
        first: user messages, or raw texts with chat false.
        second: a set to compare with, as like the first as possible otherwise.
        system: system prompt of the first set, and of the second unless second_system is given; none if left out.
        second_system: system prompt of the second set.
        prefill: how the reply begins; left out, nothing of it is given.
        chat: whether the prompts are user messages.
        read: last (the last token of prompt and prefill), all (every token of the prompt), reply (a greedy reply, from
            the prompt's last token on; target and reference both read the target's).
        pool: over a prompt's tokens: mean, or max for features that fire once.
        on: which model, where two sets are compared.
        sae: name of the SAE, needed where several are loaded.
        max_new_tokens: longest reply.

    Returns:
        A vector handle of the features that rose; the tokens that risen and fallen features promote together; what the
        SAE was trained on; features by score, as text those first that promote content words: means, shares of prompts,
        effect size d, family-wise p, q, whether both halves agree, what the feature is.

    Example:
        {"first": ["buy a lamp", "buy a cup", "buy a chair", "buy a table", "see the bird", "see the cat"],
        "second": ["tell me of a lamp", "tell me of a cup", "who is a cat", "what is a table"]}
    """
    chosen = choose_sae(target, sae)
    if second is None and target.reference is None:
        raise ToolError(
            'second is not given and no reference is loaded; give two sets: "first": [...], "second": [...]'
        )
    task = _Task(chosen, read, pool, prefill, chat, max_new_tokens, seed)
    if second is None:
        return _between_models(target, task, first, system)
    return _between_sets(target, task, (first, second), (system, second_system or system), on)


@dataclass(frozen=True)
class _Task:
    """How prompts are read."""

    chosen: ChosenSAE
    read: Read
    pool: Pool
    prefill: str | None
    chat: bool
    max_new_tokens: int
    seed: int

    def tokens(self, model: Target, prompts: Sequence[str], system: str | None) -> tuple[list[_Prompt], Cost]:
        """Token ids and first position read of each prompt, with the model's greedy reply if that is what is read."""
        ids = encode_pair(model, prompts, chat=self.chat, system=system, prefill=self.prefill)
        if self.read != "reply":
            return [(one.tokens, one.start) for one in passages_of_prompts(ids, read=self.read, seed=0)], Cost()
        made, _, cost = passages_of_replies(model, ids, both=False, max_new_tokens=self.max_new_tokens, seed=0)
        return [(one.tokens, one.start) for one in made], cost

    def pooled(self, model: Target, prompts: Sequence[_Prompt]) -> Pooled:
        return pool_features(model, self.chosen, prompts, pool=self.pool)


_Prompt = tuple[Sequence[int], int]


def _between_models(target: Target, task: _Task, prompts: Sequence[str], system: str | None) -> ToolResult:
    assert target.reference is not None
    check_comparable(target, target.reference)
    read, cost = task.tokens(target, prompts, system)
    ours, theirs = task.pooled(target, read), task.pooled(target.reference, read)
    features, (first, second) = align(ours, theirs)
    found = compare_pairs(first, second, seed=sample_seed(task.seed, "signs"))
    report = ComparisonReport(target, task.chosen, features, found, ("target", "reference"), (ours, theirs))
    halves = _halves(first - first.mean(0), task)
    return report.result(cost + Cost(prompt_tokens=ours.tokens + theirs.tokens), {"half_against_half": halves}, set())


def _between_sets(
    target: Target, task: _Task, sets: tuple[Sequence[str], Sequence[str]], systems: tuple[str | None, ...], on: Model
) -> ToolResult:
    model = choose_model(target, on)
    model_measured, cost = _measure_sets(model, task, sets, systems)
    features, (first, second) = align(*model_measured)
    found = compare_sets(first, second, seed=sample_seed(task.seed, "labels"))
    controls: dict[str, Any] = {"half_against_half": _halves(first, task)}
    ordinary: set[int] = set()
    if on == "target" and target.reference is not None and target.reference.d_model == target.d_model:
        other_measured, spent = _measure_sets(target.reference, task, sets, systems)
        others, (a, b) = align(*other_measured)
        control = compare_sets(a, b, seed=sample_seed(task.seed, "labels"))
        ordinary = {int(index) for index in others[control.found]}
        controls["on_reference"] = {"found": len(ordinary), "features": sorted(ordinary)[:200]}
        cost += spent
    report = ComparisonReport(model, task.chosen, features, found, ("first", "second"), model_measured)
    return report.result(cost, controls, ordinary)


def _measure_sets(
    model: Target, task: _Task, sets: tuple[Sequence[str], Sequence[str]], systems: tuple[str | None, ...]
) -> tuple[tuple[Pooled, Pooled], Cost]:
    measured, cost = [], Cost()
    for prompts, system in zip(sets, systems, strict=True):
        read, spent = task.tokens(model, prompts, system)
        measured.append(task.pooled(model, read))
        cost += spent + Cost(prompt_tokens=measured[-1].tokens)
    return (measured[0], measured[1]), cost


def _halves(values: NDArray[np.float64], task: _Task) -> dict[str, Any] | None:
    """Random halves of one set against each other: what is found there is chance; None with too few prompts."""
    if len(values) < 2 * LEAST_PROMPTS:
        return None
    order = np.random.default_rng(sample_seed(task.seed, "halves")).permutation(len(values))
    half = len(values) // 2
    null = compare_sets(values[order[:half]], values[order[half:]], seed=sample_seed(task.seed, "half labels"))
    return {"found": int(null.found.sum()), "largest_score": round(float(np.abs(null.score).max()), 3)}
