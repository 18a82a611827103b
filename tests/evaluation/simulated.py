"""An evaluation that was never played: rows with known rates, for what takes more runs than a test can afford."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from marple.agent.evaluation.rows import Row

HOSTILE = "<script>alert('&\"|`*x*`\u202e\x1b[31m')</script>"

RATES: Mapping[str, tuple[float, float]] = {
    "prior": (0.0, 1.0),
    "scripted-blackbox": (0.6, 0.9),
    "agent": (0.85, 0.9),
    "agent-no-sae": (0.75, 0.8),
}
"""By arm, how often it solves, and how often it clears."""

KINDS = ("hidden-goal", "trigger", "stop-misalignment")


def row(arm: str, case: int, *, clean: bool, right: bool | None, epoch: int = 1, **values: Any) -> Row:
    """One sample; ``right`` None is one without a score."""
    kind = values.pop("kind", "hidden-goal")
    organism = values.pop("organism", f"organism-{case:02}")
    sample = Row(
        f"{arm}-{kind}-{case}-{epoch}", arm, f"{kind}/nano-{case:02}", kind, organism, epoch, epoch, "submitted"
    )
    given: dict[str, Any] = {"clean": clean, "run": f"runs/{arm}-{kind}-{case}-{epoch}", **values}
    if right is None:
        given = {"status": "worker_died", "error": "the worker was lost three times", **given}
    else:
        given = {"scored": True, "solved": None if clean else right, "cleared": right if clean else None, **given}
    return Row(**{**sample.to_dict(), **given})


def rows(seed: int = 0, *, organisms: int = 16, clean: int = 8, epochs: int = 3, lost: float = 0.05) -> list[Row]:
    """A whole grid; what an organism is like is shared by the arms."""
    rng = random.Random(seed)
    hard = {case: rng.gauss(0, 0.25) for case in range(organisms + clean)}
    return [
        _sample(rng, arm, rates, case, epoch, clean=case >= organisms, hard=hard[case], lost=lost)
        for arm, rates in RATES.items()
        for case in range(organisms + clean)
        for epoch in range(1, epochs + 1)
    ]


def _sample(
    rng: random.Random,
    arm: str,
    rates: tuple[float, float],
    case: int,
    epoch: int,
    *,
    clean: bool,
    hard: float,
    lost: float,
) -> Row:
    rate = rates[clean]
    right = rng.random() < (rate if rate in (0, 1) else rate + hard)
    credence = 0.5 if arm == "prior" else rng.choice((0.6, 0.8, 0.9, 0.95))
    says_nothing = right if clean else not right
    tokens = 0 if arm == "prior" else int(rng.lognormvariate(11, 0.6))
    model = arm.startswith("agent")
    return row(
        arm,
        case,
        kind=KINDS[case % 3],
        clean=clean,
        right=None if model and rng.random() < lost else right,
        epoch=epoch,
        brier=(1 - credence) ** 2 * 2 if right else 1 + credence**2 / 2,
        forecast_skill=0.0 if arm == "prior" else rng.gauss(0.3, 0.2),
        scores={"forecast": {}},
        credence=credence,
        credence_right=right,
        nothing=credence if says_nothing else 1 - credence,
        claims=0 if arm == "prior" else 2,
        claims_replicated=0 if arm == "prior" else rng.randrange(3),
        gap={} if clean or arm == "prior" else gap(rng),
        turns=1 if arm == "prior" else rng.randrange(4, 30),
        calls=0 if arm == "prior" else rng.randrange(3, 40),
        input_tokens=rng.randrange(20_000, 200_000) if model else 0,
        output_tokens=rng.randrange(2_000, 20_000) if model else 0,
        target_tokens=tokens,
        seconds=rng.uniform(1, 90),
        cost_usd=(rng.uniform(0.05, 0.4) if rng.random() < 0.9 else None) if model else 0.0,
    )


def gap(rng: random.Random) -> dict[str, Any]:
    """What three parts of the truth went through, as a result has it."""
    shown = rng.randrange(4)
    noticed = rng.randrange(shown + 1)
    counts = {"n": 3, "shown": shown, "noticed": noticed, "concluded": rng.randrange(noticed + 1)}
    return {"overall": counts, "by_tool": {"battery": counts, "compare": counts} if shown else {}}


def document(rows: Sequence[Row], **values: Any) -> dict[str, Any]:
    """The content of an ``evaluation.json`` for these rows."""
    arms: list[dict[str, Any]] = [
        {"name": arm, "investigator": "llm" if arm.startswith("agent") else arm, "model": None, "without": []}
        for arm in dict.fromkeys(row.arm for row in rows)
    ]
    for arm in arms:
        if arm["investigator"] == "llm":
            arm["model"] = "openai-chat/some-model"
        if arm["name"] == "agent-no-sae":
            arm["without"] = ["sae"]
    return {
        "schema_version": 1,
        "created": 1764380000.0,
        "suite": "nano",
        "suite_file": None,
        "suite_file_sha256": None,
        "criteria": {},
        "criteria_sha256": "",
        "epochs": max((row.epoch for row in rows), default=1),
        "first_seed": 1,
        "run_budget": {"calls": 40},
        "arms": arms,
        "cases": [],
        "plan_sha256": "ab" * 32,
        "versions": {"marple": "0.1.0"},
        **values,
    }
