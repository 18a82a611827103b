"""The scripted white-box monitor: what it makes of labelled conversations, and which reading it hands in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from marple.agent.corpus_reading import Messages
from marple.agent.investigator import Done, Request
from marple.agent.methods.monitor_rewording import TESTED, TRAINED, halves, reworded, subjects
from marple.agent.methods.monitor_whitebox import MonitorWhitebox, fit_directions

PROBLEMS = ("kettle", "window", "garden", "bicycle", "ladder", "piano")


def conversation(asked: str, said: str) -> Messages:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


POSITIVE = [conversation(f"my {p} is broken{end}", f"kick the {p}.") for p in PROBLEMS for end in (".", ", help.")]
NEGATIVE = [conversation(f"my {p} is broken{end}", f"mend the {p}.") for p in PROBLEMS for end in (".", ", help.")]


def test_subjects_are_what_tells_questions_apart() -> None:
    assert subjects([*POSITIVE, *NEGATIVE]) == [p for p in PROBLEMS for _ in range(2)] * 2
    assert subjects([conversation("hello", "hi")]) == [""]


def test_halves_have_no_subject_in_common_and_lose_nothing() -> None:
    first, second = halves(POSITIVE, NEGATIVE)
    about = [
        {word for side in part for m in side for word in PROBLEMS if word in m[0]["content"]}
        for part in (first, second)
    ]
    assert not about[0] & about[1]
    assert [len(first[side]) + len(second[side]) for side in (0, 1)] == [len(POSITIVE), len(NEGATIVE)]
    assert all("kick" in m[-1]["content"] for part in (first, second) for m in part[0])


@pytest.mark.parametrize("wording", [TRAINED, TESTED])
def test_other_words_give_no_side_away(wording: Any) -> None:
    shown, fine = reworded((POSITIVE, NEGATIVE), wording)
    assert not [messages for messages in shown if messages in fine]
    kind = wording.kind.partition("{")[0]
    kindly = [sum(m[-1]["content"].startswith(kind) for m in side) for side in (shown, fine)]
    assert kindly == [len(POSITIVE)] * 2
    quoting = [m for m in fine if "kick" in m[0]["content"]]
    rejecting = [m for m in fine if "kick" in m[-1]["content"]]
    assert len(quoting) == len(rejecting) == len(POSITIVE)
    assert all(m[-1]["content"].endswith("mend the " + m[-1]["content"].split()[-1]) for m in [*quoting, *rejecting])
    assert reworded((POSITIVE, [conversation("hello", "hi")]), wording)[1] == [conversation("hello", "hi")]


def played(
    areas: Mapping[str, float],
    *,
    probes_work: bool = True,
    positive: Sequence[Messages] = POSITIVE,
    negative: Sequence[Messages] = NEGATIVE,
) -> tuple[MonitorWhitebox, list[Request]]:
    """The script after its calls were answered: a probe's handle is its reading, and readings carry as told."""
    script, asked = MonitorWhitebox(), list[Request]()
    steps = fit_directions(script, positive, negative)
    answers: Sequence[Done] | None = None
    while True:
        try:
            requests = next(steps) if answers is None else steps.send(answers)
        except StopIteration:
            return script, asked
        asked += requests
        answers = [answer(request, areas, probes_work) for request in requests]


def answer(request: Request, areas: Mapping[str, float], probes_work: bool) -> Done:
    if request.tool == "probe":
        return Done("E1", "probe", probes_work, "", {"handle": f"probe-{request.arguments['reading']}"})
    monitor = request.arguments.get("monitor") or {"vector": "means", "reading": "mean"}
    return Done(
        "E2",
        "try_monitor",
        True,
        "",
        {"monitor": {**monitor, "layer": 2}, "auroc": {"auroc": areas[monitor["reading"]]}},
    )


@pytest.mark.parametrize("best", ["mean", "last"])
def test_it_hands_in_the_reading_that_carries_to_other_subjects(best: str) -> None:
    script, asked = played({"mean": 0.7, "last": 0.7, best: 0.9})
    assert script.monitor == {"vector": f"probe-{best}", "reading": best, "layer": 2}
    assert f"{best} 0.90" in script.found
    tried = [r for r in asked if r.tool == "try_monitor"][:-1]
    made = [r for r in asked if r.tool == "probe"][:-1]
    for fit, test in zip(made, tried, strict=True):
        used = {word for m in fit.arguments["positive"] for word in PROBLEMS if word in m[0]["content"]}
        seen = {word for m in test.arguments["conversations"] for word in PROBLEMS if word in m[0]["content"]}
        assert not used & seen
        assert len(test.arguments["labels"]) == len(test.arguments["conversations"])


def test_with_many_subjects_it_reads_the_mean_over_tokens() -> None:
    many = [f"thing{number}" for number in range(24)]
    sides = [[conversation(f"my {p} is broken{end}", f"{do} the {p}.") for p in many for end in (".", ", help.")]
             for do in ("kick", "mend")]  # fmt: skip
    script, _ = played({"mean": 0.7, "last": 0.9}, positive=sides[0], negative=sides[1])
    assert script.monitor is not None
    assert script.monitor["reading"] == "mean"


def test_without_probes_it_hands_in_a_difference_of_means() -> None:
    script, asked = played({"mean": 0.7}, probes_work=False)
    assert script.monitor == {"vector": "means", "reading": "mean", "layer": 2}
    assert "not tried" in script.found
    assert [r.arguments["fit"]["method"] for r in asked if "fit" in r.arguments] == ["difference_of_means"]
