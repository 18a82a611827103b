"""The results of an evaluation as one document, from which every form of the report is made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marple.agent.evaluation.calibration import SUBJECTS, calibration
from marple.agent.evaluation.collecting import completed
from marple.agent.evaluation.comparisons import FAMILIES, Comparison, compare_arms
from marple.agent.evaluation.criteria import judged
from marple.agent.evaluation.curves import COSTS, cost_curve
from marple.agent.evaluation.findings import nulls, tool_gap
from marple.agent.evaluation.rows import Row
from marple.agent.evaluation.statistics import costs, estimates, kinds_with, outcomes

__all__ = ["CONTROLS", "RESULTS_VERSION", "results_of"]

RESULTS_VERSION = 1

CONTROLS = ("prior", "scripted-blackbox", "scripted-whitebox")
"""Investigators that are control arms, the weakest first."""

_STANDING = {
    "prior": "answers from the brief alone: what it gets is what the cases give away",
    "scripted-blackbox": "no language model, the same tools and budget: does an agent beat a for-loop?",
}
"""The controls that no table is without, and why."""


def results_of(rows: Iterable[Row], document: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a report shows; the same rows and document give the same results.

    Args:
        rows: one for every sample, whether or not it was scored.
        document: the content of ``evaluation.json``.
    """
    samples = completed(rows)
    configured = {str(arm["name"]): arm for arm in document["arms"]}
    arms = list(dict.fromkeys([*configured, *(row.arm for row in samples)]))
    by_arm = {arm: [row for row in samples if row.arm == arm] for arm in arms}
    kinds = kinds_with(samples)
    headline = [_summary(arm, by_arm[arm], kinds) for arm in arms]
    results = {
        "results_version": RESULTS_VERSION,
        "evaluation": {name: value for name, value in document.items() if name not in ("arms", "cases")},
        "arms": [_arm(arm, configured.get(arm, {})) for arm in arms],
        "controls": _controls(arms, configured),
        "series": _series(headline, configured),
        "counts": _counts(samples, arms),
        "headline": headline,
        "kinds": [
            _summary(arm, own, kinds, kind=kind)
            for kind in sorted({row.kind for row in samples})
            for arm in arms
            if (own := [row for row in by_arm[arm] if row.kind == kind])
        ],
        "families": FAMILIES,
        "comparisons": [one.to_dict() for one in _compared(samples, arms, configured, kinds)],
        "calibration": [
            {"arm": arm, "subject": subject, **calibration(by_arm[arm], subject).to_dict()}
            for subject in SUBJECTS
            for arm in arms
        ],
        "curves": [{"arm": arm, "cost": cost, **cost_curve(by_arm[arm], cost)} for cost in COSTS for arm in arms],
        "gap": [{"arm": arm, **tool_gap(by_arm[arm])} for arm in arms],
        "nulls": [{"arm": arm, **one} for arm in arms for one in nulls(by_arm[arm])],
        "outcomes": [{"arm": arm, "n": len(by_arm[arm]), "by_status": outcomes(by_arm[arm])} for arm in arms],
        "matrix": _matrix(samples, arms),
        "samples": [_sample(row) for row in samples],
    }
    return {**results, "criteria": judged(document, headline)}


def _present(arms: Sequence[str], configured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The control arms, the weakest first; one that lacks tools is an ablation and no control."""
    whole = [
        arm for arm in arms if not {"without", "only"} & {key for key, one in configured.get(arm, {}).items() if one}
    ]
    played = {arm: str(configured.get(arm, {}).get("investigator", arm)) for arm in whole}
    return [arm for control in CONTROLS for arm in whole if played[arm] == control]


def _compared(
    rows: Sequence[Row],
    arms: Sequence[str],
    configured: Mapping[str, Mapping[str, Any]],
    kinds: Mapping[str, frozenset[str]],
) -> list[Comparison]:
    chosen = [name for name, arm in configured.items() if arm.get("cases")]
    return compare_arms(rows, arms, _present(arms, configured), kinds, chosen=chosen)


def _controls(arms: Sequence[str], configured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    present = _present(arms, configured)
    played = {str(configured.get(arm, {}).get("investigator", arm)) for arm in present}
    missing = [{"investigator": name, "why": why} for name, why in _STANDING.items() if name not in played]
    return {"present": present, "missing": missing}


def _series(headline: Sequence[Mapping[str, Any]], configured: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Arms that differ in nothing but their budget, the cheapest run first."""
    cost = {str(row["arm"]): float(row["costs"]["target_tokens"] or 0) for row in headline}
    alike: dict[str, list[str]] = {}
    for name, arm in configured.items():
        said = json.dumps({key: value for key, value in arm.items() if key not in ("name", "budget")}, sort_keys=True)
        alike.setdefault(said, []).append(name)
    return [sorted(names, key=lambda name: (cost[name], name)) for names in alike.values() if len(names) > 1]


def _arm(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    return {**said, "name": name, "investigator": said.get("investigator", name)}


def _counts(rows: Sequence[Row], arms: Sequence[str]) -> dict[str, int]:
    cases = {row.case: row for row in rows}
    return {
        "samples": len(rows),
        "scored": sum(row.scored for row in rows),
        "arms": len(arms),
        "cases": len(cases),
        "epochs": len({row.epoch for row in rows}),
        "organisms": len({row.organism for row in rows}),
        "hiding": sum(row.clean is False for row in cases.values()),
        "clean": sum(row.clean is True for row in cases.values()),
        "unknown": sum(row.clean is None for row in cases.values()),
    }


def _summary(
    arm: str, rows: Sequence[Row], kinds: Mapping[str, frozenset[str]], *, kind: str | None = None
) -> dict[str, Any]:
    measures = {name: one.to_dict() for name, one in estimates(rows, kinds).items()}
    where = {} if kind is None else {"kind": kind}
    return {
        "arm": arm,
        **where,
        "n_scored": sum(row.scored for row in rows),
        "n_total": len(rows),
        "measures": measures,
        "claims": {"n": sum(row.claims_replicated for row in rows), "n_total": sum(row.claims for row in rows)},
        "costs": costs(rows),
    }


def _matrix(rows: Sequence[Row], arms: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for case in sorted({row.case for row in rows}):
        own = [row for row in rows if row.case == case]
        cells = {arm: [_cell(row) for row in own if row.arm == arm] for arm in arms}
        first = own[0]
        found.append(
            {"case": case, "kind": first.kind, "organism": first.organism, "clean": first.clean, "cells": cells}
        )
    return found


def _cell(row: Row) -> dict[str, Any]:
    return {"epoch": row.epoch, "mark": _mark(row), "status": row.status, "run": row.run, "error": row.error}


def _mark(row: Row) -> str:
    """``right``, ``wrong``, ``unscored`` or ``not_run``; a wrong one on a clean target is a false alarm."""
    if row.status == "not_run":
        return "not_run"
    verdict = row.cleared if row.clean else row.solved
    return "unscored" if not row.scored or verdict is None else "right" if verdict else "wrong"


def _sample(row: Row) -> dict[str, Any]:
    """A sample's row without the details, which its run has."""
    return {name: value for name, value in row.to_dict().items() if name not in ("scores", "gap")}
