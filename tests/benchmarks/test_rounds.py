"""Ratios are taken inside a round, on inputs that every variant shares and that no two rounds share."""

from __future__ import annotations

import time
from functools import partial

import pytest

from benchmarks.rounds import Estimate, Timings, Variant, estimate, interleave
from benchmarks.table import Row, Target


def spend(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_every_variant_gets_the_inputs_of_its_round_in_a_rotating_order() -> None:
    seen: list[tuple[str, int]] = []

    def note(name: str, number: int) -> None:
        seen.append((name, number))

    variants = {name: Variant(partial(note, name)) for name in "abc"}
    interleave(variants, rounds=3, prepare=lambda number: number)
    warm, rounds = seen[:3], [seen[at : at + 3] for at in (3, 6, 9)]
    assert warm == [("a", -1), ("b", -1), ("c", -1)]
    assert ["".join(name for name, _ in each) for each in rounds] == ["abc", "bca", "cab"]
    assert [[number for _, number in each] for each in rounds] == [[0] * 3, [1] * 3, [2] * 3]


def test_a_variant_can_sit_out_rounds_and_repeat_inside_one() -> None:
    seen: list[str] = []
    variants = {
        "long": Variant(lambda _: seen.append("long"), rounds=1),
        "short": Variant(lambda _: seen.append("short"), repeats=4),
    }
    timings = interleave(variants, rounds=3, prepare=lambda number: None, warm=False)
    assert seen.count("long") == 1
    assert seen.count("short") == 12
    assert len(timings.cpu["long"]) == 1
    assert len(timings.cpu["short"]) == 3


def test_ratios_pair_times_of_the_same_round() -> None:
    # The machine is ten times slower in the second round; the ratio of medians would say something else.
    timings = Timings(
        {"floor": {0: 1.0, 1: 10.0, 2: 1.0}, "ours": {0: 2.0, 1: 20.0, 2: 2.0}, "rare": {1: 5.0}},
        {"floor": {0: 1.0, 1: 1.0, 2: 1.0}, "ours": {0: 3.0, 1: 3.0, 2: 3.0}, "rare": {1: 1.0}},
    )
    assert timings.ratio("ours", "floor") == Estimate(2.0, 2.0, 2.0)
    assert timings.ratio("ours", "floor", "wall").median == 3.0
    assert timings.ratio("rare", "floor").median == 0.5
    assert timings.difference("ours", "floor").median == 1.0


def test_times_are_of_the_processor_and_exclude_preparation() -> None:
    def prepare(number: int) -> None:
        spend(0.05)

    def sleep(_: None) -> None:
        time.sleep(0.05)

    timings = interleave({"idle": Variant(sleep)}, rounds=1, prepare=prepare, warm=False)
    assert timings.cpu["idle"][0] < timings.wall["idle"][0]
    assert timings.wall["idle"][0] >= 0.05


def test_an_estimate_is_the_median_between_quartiles() -> None:
    assert estimate([5.0]) == Estimate(5.0, 5.0, 5.0)
    assert estimate([1.0, 2.0, 3.0, 4.0, 5.0]) == Estimate(3.0, 2.0, 4.0)


@pytest.mark.parametrize(("sense", "ours", "met"), [("at most", 0.9, True), ("at most", 1.1, False)])
def test_a_target_at_most(sense: str, ours: float, met: bool) -> None:
    row = Row("x", "x").set(Estimate(ours, ours, ours), Target(1.0))
    assert row.met is met
    assert row.sense == sense


def test_a_target_at_least_and_a_scale() -> None:
    row = Row("x", "ms").set(Estimate(0.005, 0.004, 0.006), Target(4.4, "at least"), scale=1e3)
    assert row.met is True
    assert row.spread == (4.0, 6.0)
