"""How scripts state what a claim's call shows: a bound halfway to what it would be by chance, or a little above."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from marple.agent.effects import measure, stated_effect
from marple.agent.investigator import Done
from marple.tasks.claims import Shows

__all__ = ["Reading", "at_least_halfway", "at_most_about", "claim", "shown_by"]

Reading = Mapping[str, str]
"""What is read of a call: the fields of `Shows` but the call and the thresholds."""


def claim(statement: str, credence: float, evidence: list[str], shows: dict[str, Any]) -> dict[str, Any]:
    """A claim; without ``shows`` where that is empty, and with the call that it names among the evidence."""
    cited = list(dict.fromkeys([*evidence, *([shows["call"]] if shows else [])]))
    return {
        "statement": statement,
        "credence": round(credence, 4),
        "evidence": cited,
        **({"shows": shows} if shows else {}),
    }


def shown_by(done: Done, what: Reading) -> float | None:
    """The share or the number that a call shows now."""
    if not done.ok:
        return None
    value = measure(stated_effect(Shows.model_validate({"call": done.id, "at_least": 0.0, **what})), done.data).value
    assert not isinstance(value, str)
    return value


def at_least_halfway(done: Done, what: Reading, *, chance: float = 0.0) -> dict[str, Any]:
    """What is to come again at least halfway from ``chance``; empty where the call shows no more than that.

    Chance is what the reference's replies show, where the call has some and these show more.
    """
    value = shown_by(done, what)
    if "number" not in what:
        chance = max(chance, shown_by(replace(done, data=_of_reference(done.data)), what) or 0.0)
    if value is None or value <= chance:
        return {}
    return {"call": done.id, **what, "at_least": _rounded((chance + value) / 2, down=True)}


def at_most_about(done: Done, what: Reading, *, slack: float) -> dict[str, Any]:
    """What is not to come: at most ``slack`` above what the call shows; empty where that cannot be told."""
    value = shown_by(done, what)
    if value is None:
        return {}
    bound = _rounded(value + slack, down=False)
    return {"call": done.id, **what, "at_most": bound if "number" in what else min(1.0, bound)}


def _of_reference(data: Any) -> Any:
    """A result in which the target's replies have given way to the reference's."""
    rows = [{**row, "replies": row["reference_replies"]} for row in data.get("rows", ()) if "reference_replies" in row]
    return {"rows": rows}


def _rounded(value: float, *, down: bool) -> float:
    """To three digits behind the point."""
    scaled = value * 1000
    return (math.floor(scaled) if down else math.ceil(scaled)) / 1000
