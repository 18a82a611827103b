"""The rule of a steering verdict, on made-up doses."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from marple.tools.steering.fluency import Fluency, measure_fluency, repetition
from marple.tools.steering.verdict import Verdict, judge

settings.load_profile("vectors")

SCALES = (-1.0, -0.5, 0.5, 1.0)
PROMPTS = 12


def doses(effect: list[float], *, controls: int = 7, noise: float = 0.02, seed: int = 0) -> NDArray[np.float64]:
    """Changes ``(direction, scale, prompt)``: the effect's means, and controls about 0."""
    generator = np.random.default_rng(seed)
    changes = generator.normal(0, noise, size=(1 + controls, len(effect), PROMPTS))
    changes[0] += np.array(effect)[:, None]
    return changes


def verdict(changes: NDArray[np.float64], **given: Any) -> Verdict:
    fluent = given.pop("fluent", np.ones(changes.shape[:2], dtype=bool))
    return judge(changes, **{"scales": SCALES, "fluent": fluent, "shares": False, **given})


def test_an_effect_of_its_own_that_grows_with_the_dose_is_causal() -> None:
    found = verdict(doses([0.0, 0.0, 0.4, 0.8]))
    assert found.label == "causal"
    assert found.scale == 1.0
    assert found.low > 0.7
    assert found.control < 0.05


def test_a_fall_and_the_negative_arm_count_too() -> None:
    assert verdict(doses([0.0, 0.0, -0.4, -0.8])).change == pytest.approx(-0.8, abs=0.02)
    found = verdict(doses([0.9, 0.4, 0.0, 0.0]))
    assert (found.label, found.scale) == ("causal", -1.0)
    assert verdict(doses([0.0, 0.0, -0.4, -0.8]), senses=(1,)).label == "indistinguishable from control"


def test_nothing_is_found_in_nothing() -> None:
    assert verdict(doses([0.0] * 4)).label == "indistinguishable from control"


def test_one_control_that_does_as_much_is_enough_to_refute() -> None:
    changes = doses([0.0, 0.0, 0.4, 0.8])
    changes[3, 0] += 0.9
    found = verdict(changes)
    assert found.label == "indistinguishable from control"
    assert found.control == pytest.approx(0.9, abs=0.02)


def test_controls_that_scatter_widely_leave_it_weak() -> None:
    changes = doses([0.0, 0.0, 0.4, 0.8])
    changes[1:, 3] += np.linspace(0.1, 0.7, 7)[:, None]
    found = verdict(changes)
    assert found.label == "weak"
    assert "spread" in found.reason


def test_an_effect_within_a_controls_interval_is_weak() -> None:
    changes = doses([0.0, 0.0, 0.4, 0.8])
    changes[2, 3] += np.where(np.arange(PROMPTS) % 2 == 0, 1.5, -0.6)
    found = verdict(changes)
    assert found.label == "weak"
    assert "1 of 7" in found.reason


def test_a_jump_back_within_the_doses_is_no_dose_response() -> None:
    found = verdict(doses([0.6, 0.2, 0.8, 0.3, 1.0]), scales=(0.1, 0.2, 0.3, 0.4, 0.5))
    assert found.label == "weak"
    assert "does not grow" in found.reason


def test_one_fluent_scale_is_no_dose_response() -> None:
    fluent = np.ones((8, 4), dtype=bool)
    fluent[0, 3] = False
    found = verdict(doses([0.0, 0.0, 0.4, 0.8]), fluent=fluent)
    assert (found.label, found.scale) == ("weak", 0.5)
    fluent[0] = False
    assert "no scale left the replies fluent" in verdict(doses([0.0, 0.0, 0.4, 0.8]), fluent=fluent).reason


def test_too_few_controls_are_never_enough() -> None:
    assert verdict(doses([0.0, 0.0, 0.4, 0.8], controls=2)).label == "weak"
    assert verdict(doses([0.0, 0.0, 0.4, 0.8], controls=0)).label == "weak"


@given(st.integers(0, 10_000), st.floats(0.01, 100.0), st.integers(3, 9))
def test_the_verdict_depends_on_no_unit_and_no_order(seed: int, unit: float, controls: int) -> None:
    generator = np.random.default_rng(seed)
    changes = doses(list(generator.normal(0, 0.3, size=4)), controls=controls, noise=0.2, seed=seed)
    found = verdict(changes)
    assert verdict(unit * changes).label == found.label
    assert verdict(-changes).label == found.label
    order = generator.permutation(controls) + 1
    assert verdict(changes[[0, *order]][:, :, generator.permutation(PROMPTS)]).label == found.label
    assert verdict(changes[:, ::-1], scales=SCALES[::-1]).label == found.label


def test_a_direction_like_its_controls_is_causal_in_few_of_a_hundred() -> None:
    """Effect and controls drawn alike: over 3,000 draws 2.5 % with noise over prompts and 2.1 % without are causal."""
    generator = np.random.default_rng(0)
    for noise in (0.3, 0.0):
        labels = []
        for _ in range(500):
            slopes = generator.normal(size=(8, 1, 1)) * np.array(SCALES)[None, :, None]
            changes = slopes + noise * generator.normal(size=(8, 4, PROMPTS))
            labels.append(verdict(changes).label)
        assert labels.count("causal") / 500 <= 0.04
        assert labels.count("weak") / 500 <= 0.2


def test_fluency_by_hand() -> None:
    assert repetition([1, 2, 3, 1, 2, 3]) == pytest.approx(1 / 4)
    assert repetition([1, 2]) == 0.0
    found = measure_fluency([[1, 2], [5, 5, 5, 5], []], [[-1.0, -3.0], [-1.0] * 4, []])
    assert found == Fluency(nll=1.5, repetition=pytest.approx(1 / 6), empty=pytest.approx(1 / 3))  # type: ignore[arg-type]
    plain = Fluency(1.0, 0.0, 0.0)
    assert plain.problem(plain, margin=1.0) == ""
    assert "nats per token" in Fluency(2.1, 0, 0).problem(plain, margin=1.0)
    assert "repeat" in Fluency(1.0, 0.3, 0).problem(plain, margin=1.0)
    assert "empty" in Fluency(1.0, 0, 0.3).problem(plain, margin=1.0)
