"""What was promised before the first run, and whether it came true.

A criterion is printed in the words it was given in. One that is written as comparisons is judged as well::

    balanced_accuracy(mine) > balanced_accuracy(scripted-blackbox) and balanced_accuracy.low(mine) >= 0.6

A name is a measure of the headline table; ``.low`` and ``.high`` are the ends of its interval. Nothing else is judged:
a program that reads prose would find what it hopes for.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marple.agent.evaluation.statistics import MEASURES

__all__ = ["judged"]

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_TERM = r"(?:[a-z_]+(?:\.low|\.high)?\([^()]+\)|[+-]?\d+(?:\.\d+)?)"
_COMPARISON = re.compile(rf"\s*({_TERM})\s*(>=|<=|>|<)\s*({_TERM})\s*")
_NAMED = re.compile(r"([a-z_]+)(?:\.(low|high))?\(([^()]+)\)")


def judged(document: Mapping[str, Any], headline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The criteria of an evaluation.

    Args:
        document: the content of ``evaluation.json``.
        headline: the summaries of the arms.

    Returns:
        ``sha256`` of what was written down before the first run, and ``criteria``: each with ``name``, ``text`` as
        given, ``met`` (None where it is not judged) and ``how`` it was judged, or why not.
    """
    measures = {str(one["arm"]): one["measures"] for one in headline}
    criteria = document.get("criteria") or {}
    return {
        "sha256": document.get("criteria_sha256") if criteria else None,
        "criteria": [
            {"name": name, "text": str(text), **_judge(str(text), measures)} for name, text in criteria.items()
        ],
    }


def _judge(text: str, measures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    parts = [_COMPARISON.fullmatch(part) for part in re.split(r"\band\b", text)]
    if not all(parts):
        return {"met": None, "how": "in words: for a reader to judge"}
    met, said = True, []
    for part in parts:
        assert part is not None
        left, right = _value(part[1], measures), _value(part[3], measures)
        unknown = next((one for one in (left, right) if isinstance(one, str)), None)
        if unknown is not None or isinstance(left, str) or isinstance(right, str):
            return {"met": None, "how": f"not judged: {unknown}"}
        met = met and _OPERATORS[part[2]](left, right)
        said.append(
            f"{part[1]} is {left:.3f}" + ("" if _NAMED.fullmatch(part[3]) is None else f", {part[3]} is {right:.3f}")
        )
    return {"met": met, "how": "; ".join(said)}


def _value(term: str, measures: Mapping[str, Mapping[str, Any]]) -> float | str:
    """The number that a term stands for, or why it stands for none."""
    named = _NAMED.fullmatch(term)
    if named is None:
        return float(term)
    name, end, arm = named[1], named[2], named[3].strip()
    if name not in MEASURES:
        return f"{name!r} is no measure; there are {', '.join(MEASURES)}"
    if arm not in measures:
        return f"there is no arm {arm!r}; there are {', '.join(measures)}"
    value = measures[arm][name][end or "value"]
    return float(value) if value is not None else f"{term} has no value: {measures[arm][name]['why'] or 'not scored'}"
