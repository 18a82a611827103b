from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from marple.errors import ToolError
from marple.tools.arguments import one_turn
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site
from marple.tools.replies import Sampling
from marple.tools.steering.controls import activation_spread, make_controls, random_direction
from marple.tools.steering.dose_response import EFFECT, DoseResponse, dose_response
from marple.tools.steering.measuring import measure
from marple.tools.steering.outcomes import Continuations, OwnWords, Projection, Words, contains_any, grown_ngrams
from marple.tools.steering.planted import PROMPTS, Planted, planted_target
from marple.tools.target.target import Completion, Target
from marple.tools.target.tiny import tiny_target

SITE = Site(1, "resid_post")
LAMP = Continuations((" lamp",), (" cup",))


def prompts(target: Target) -> list[list[int]]:
    return [target.render(one_turn(text)) for text in PROMPTS]


def run(target: Target, effect: torch.Tensor, **given: Any) -> DoseResponse:
    seed = given.setdefault("seed", 1)
    given.setdefault("controls", None)
    if given["controls"] is None:
        given["controls"] = make_controls(target, prompts(target), site=SITE, seed=seed)
    defaults = {"scales": (-1.0, 0.5, 1.0, 1.5), "outcome": Words(("lamp",)), "sampling": Sampling(2, 1.0, 6)}
    return dose_response(target, prompts(target), site=SITE, effect=effect, **{**defaults, **given})


def test_the_planted_direction_is_causal_by_every_outcome(planted: Planted) -> None:
    outcomes = (Words(("lamp",)), LAMP, Projection(SITE, planted.direction))
    for outcome in outcomes:
        samples = 4 if isinstance(outcome, Words) else 1
        found = run(planted.target, planted.direction, outcome=outcome, sampling=Sampling(samples, 1.0, 6))
        assert found.verdict.label == "causal", f"{outcome}: {found.verdict.reason}"
        assert (found.verdict.scale or 0) * found.verdict.change > 0


def test_words_that_a_direction_brings_are_found_and_its_controls_get_their_own(planted: Planted) -> None:
    found = run(planted.target, planted.direction, outcome=OwnWords(), sampling=Sampling(4, 1.0, 6))
    assert "lamp" in found.own_words["effect +"]
    assert {key.rpartition(" ")[0] for key in found.own_words} == {EFFECT, *found.directions[1:]}
    best = next(dose for dose in found.of(EFFECT) if dose.scale == found.verdict.scale)
    assert best.outcome - found.unsteered.outcome == pytest.approx(found.verdict.change)
    at_one = {dose.direction: dose.outcome for dose in found.doses if dose.scale == 1.0}
    assert at_one.pop(EFFECT) > max(at_one.values())


@pytest.mark.parametrize("outcome", [Words(("lamp", "cup")), LAMP], ids=["words", "continuations"])
def test_random_directions_are_seldom_called_causal(outcome: Any) -> None:
    """Eight models each, nothing planted; the module of the verdict says what was measured over 480."""
    labels: Counter[str] = Counter()
    for seed in range(8):
        given = {"outcome": outcome, "seed": seed, "sampling": Sampling(1, 1.0, 4), "scales": (-1.0, 0.5, 1.0)}
        labels[run(tiny_target(seed=seed), random_direction(32, seed=9000 + seed), **given).verdict.label] += 1
    assert labels["causal"] <= 1
    assert labels["indistinguishable from control"] >= 5


def test_everything_is_as_long_as_scale_and_unit_say(planted: Planted) -> None:
    """A projection on the direction itself moves by exactly the dose, however long the given vector is."""
    outcome = Projection(SITE, planted.direction)
    long = run(planted.target, 37.0 * planted.direction, outcome=outcome, unit=0.5, scales=(-2.0, 3.0))
    short = run(planted.target, planted.direction, outcome=outcome, unit=0.5, scales=(-2.0, 3.0))
    for found in (long, short):
        changes = [dose.outcome - found.unsteered.outcome for dose in found.of(EFFECT)]
        assert changes == pytest.approx([-1.0, 1.5], abs=1e-4)
    usual = run(planted.target, planted.direction, outcome=outcome)
    assert usual.unit == activation_spread(planted.target, prompts(planted.target), site=SITE)
    assert usual.of(EFFECT)[-1].outcome - usual.unsteered.outcome == pytest.approx(1.5 * usual.unit, rel=1e-4)


def test_continuations_are_scored_under_the_edit(planted: Planted) -> None:
    found = run(planted.target, planted.direction, outcome=Continuations((" lamp",)), scales=(1.0,))
    edit = (Intervention(SITE, found.unit * planted.direction),)
    asked = prompts(planted.target)
    logits = planted.target.next_logits(asked, interventions=[edit] * len(asked)).log_softmax(-1)
    token = planted.target.tokenizer.convert_tokens_to_ids(" lamp")
    assert found.of(EFFECT)[0].outcome == pytest.approx(float(logits[:, token].mean()), abs=1e-3)


def test_equal_directions_give_equal_replies_whatever_their_names(planted: Planted) -> None:
    """Controls share prompts and seeds with the effect: a copy of the effect among them is indistinguishable."""
    copy = {"copy": planted.direction, **make_controls(planted.target, prompts(planted.target), site=SITE, seed=1)}
    found = run(planted.target, planted.direction, controls=copy)
    pairs = zip(found.of(EFFECT), found.of("copy"), strict=True)
    assert all((one.outcome, one.fluency, one.example) == (two.outcome, two.fluency, two.example) for one, two in pairs)
    assert found.verdict.label == "indistinguishable from control"
    assert run(planted.target, planted.direction).of(EFFECT) == found.of(EFFECT)


def test_a_scale_that_destroys_fluency_is_no_evidence(planted: Planted) -> None:
    found = run(planted.target, planted.direction, scales=(0.5, 1.0, 30.0), sampling=Sampling(4, 1.0, 6))
    broken = found.of(EFFECT)[-1]
    assert broken.outcome == 1.0
    assert "repeat" in broken.problem or "nats" in broken.problem
    assert found.verdict.scale != 30.0
    alone = run(planted.target, planted.direction, scales=(30.0,), sampling=Sampling(4, 1.0, 6))
    assert alone.verdict.label == "indistinguishable from control"
    assert "fluent" in alone.verdict.reason


def test_controls_are_unit_vectors_that_the_seed_draws(planted: Planted) -> None:
    target = planted.target
    first, again, other = (make_controls(target, prompts(target), site=SITE, seed=seed) for seed in (1, 1, 2))
    assert list(first) == [
        "random 1",
        "random 2",
        "random 3",
        "unrelated pairs (tense)",
        "unrelated pairs (number)",
        "norm-matched 1",
        "norm-matched 2",
    ]
    for name, direction in first.items():
        assert float(direction.norm()) == pytest.approx(1.0, abs=1e-5)
        assert torch.equal(direction, again[name])
        assert torch.equal(direction, other[name]) == name.startswith("unrelated")
        assert abs(float(direction @ planted.direction)) < 0.7
    cloud = torch.cat(target.capture(prompts(target), [SITE], positions="all")[SITE])
    variance = (cloud - cloud.mean(dim=0)).square().mean(dim=0)
    assert float(variance[0]) < float(variance.mean()) / 5
    assert max(abs(float(first[f"norm-matched {at}"][0])) for at in (1, 2)) < 0.1, "the constant dimension is not moved"


def test_own_words_are_chosen_on_one_half_of_the_samples_and_counted_on_the_other(tiny: Target) -> None:
    def replies(chosen_on: str, counted_on: str) -> list[list[Completion]]:
        return [[Completion(text, (1,), "stop", 1) for text in (chosen_on, chosen_on, counted_on, counted_on)]] * 4

    table = [replies("a cat", "a red cat"), replies("a red cat", "a cat"), replies("a lamp", "a red lamp")]
    found = measure(
        tiny,
        [[1]] * 4,
        [(), (), ()],
        table,
        OwnWords(),
        directions=["effect"],
        scales=[-1.0, 1.0],
        fluent=np.array([[True, True]]),
    )
    assert found.own_words == {"effect +": ("lamp",), "effect -": ("red",)}
    assert found.steered.tolist() == [[0.0] * 4, [1.0] * 4]
    assert found.unsteered.tolist() == [[1.0] * 4, [0.0] * 4]


def test_words_are_found_whole_and_in_any_case() -> None:
    pattern = contains_any(["lamp", "table  lamp", "a.b"])
    assert pattern.search("A LAMP.")
    assert pattern.search("table\nlamp")
    assert not pattern.search("lamps")
    assert not pattern.search("axb")
    for bad in ([], ["lamp", " "]):
        with pytest.raises(ToolError, match="must each hold a word"):
            contains_any(bad)


def test_grown_ngrams_are_those_that_steering_adds() -> None:
    plain = ["the cat sat", "the dog sat", "the cat ran", "a dog ran"] * 5
    steered = [f"{text} under red lamps" for text in plain]
    chosen = grown_ngrams(steered, plain, most=3)
    assert len(chosen) <= 3
    assert all(any(word in ngram for word in ("under", "red", "lamps")) for ngram in chosen)
    assert grown_ngrams(plain, plain, most=3) == ()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"effect": torch.ones(8)}, r"shape \(8,\); the target's activations have \(32,\)"),
        ({"effect": torch.zeros(32)}, "is 0, NaN or infinite"),
        ({"effect": torch.full((32,), float("nan"))}, "is 0, NaN or infinite"),
        ({"controls": {"mine": torch.ones(3)}}, "'mine' has shape"),
        ({"scales": ()}, "scales is"),
        ({"scales": (0.0, 1.0)}, "other than 0"),
        ({"scales": (1.0, 1.0)}, "different"),
        ({"scales": (float("nan"),)}, "finite"),
        ({"outcome": Continuations(())}, "none is given"),
        ({"outcome": Continuations(("",))}, "no token"),
        ({"outcome": Projection(SITE, torch.ones(5))}, r"not \(32,\)"),
        ({"outcome": Words((" ",))}, "must each hold a word"),
    ],
)
def test_bad_input_is_refused(planted: Planted, given: dict[str, Any], reason: str) -> None:
    effect = given.pop("effect", planted.direction)
    with pytest.raises(ToolError, match=reason):
        run(planted.target, effect, **{"scales": (1.0,), "sampling": Sampling(1, 1.0, 2), **given})
    with pytest.raises(ToolError, match="1 prompts to steer on"):
        dose_response(
            planted.target,
            prompts(planted.target)[:1],
            site=SITE,
            effect=planted.direction,
            controls={},
            scales=[1.0],
            outcome=LAMP,
            sampling=Sampling(1, 1.0, 2),
            seed=0,
        )


def test_the_planted_model_is_planted_for_other_seeds_too() -> None:
    found = [planted_target(seed=seed) for seed in (1, 2)]
    quick: dict[str, Any] = {"outcome": LAMP, "sampling": Sampling(1, 1.0, 3), "scales": (-1.0, 0.5, 1.0)}
    labels = [run(one.target, one.direction, **quick).verdict.label for one in found]
    assert labels == ["causal", "causal"]
    assert not np.allclose(found[0].direction, found[1].direction)
