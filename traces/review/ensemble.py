"""An ensemble's members on its page, what their number brought, and the way back from a member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.traces.index_entries import verdict_of
from marple.traces.review.blocks import Cell, Chart, Series, Table, bar, share
from marple.traces.review.fields import items, mapping, number, of, rows, text, whole
from marple.traces.review.opened import Opened
from marple.traces.review.verdict import conclusion

__all__ = ["Ensemble", "Member", "ensemble_of", "part_of"]


@dataclass(frozen=True)
class Member:
    """One of the investigations that the ensemble rests on."""

    number: int
    run: str
    """Name of its folder; '' where that is not beside the ensemble's."""
    status: str
    concluded: str
    credence: float | None
    claims: int
    word: str
    """Its verdict against the truth, '' where that is not known."""
    brier: float | None
    tokens: int | None


@dataclass(frozen=True)
class Ensemble:
    """What the members said, and what more of them were worth."""

    members: Sequence[Member]
    growth: Sequence[Chart | Table]
    alike: str
    """Whether those that were wrong were wrong alike, in a sentence; '' where that is not known."""


def ensemble_of(run: Opened) -> Ensemble | None:
    """The members of an ensemble's run; None for another, and before they are through."""
    told = [one for event in run.of_type("ensemble") for one in rows(event.payload.get("members"))]
    if not told:
        return None
    report = mapping(of(run.result, "ensemble"))
    scores = {one.get("member"): mapping(one.get("score")) for one in rows(report.get("members"))}
    members = [_member(run, one, scores.get(one.get("member"), {})) for one in told[:100]]
    sizes = rows(report.get("by_size"))
    return Ensemble(members, [*_chart(sizes), *_table(sizes)], _alike(mapping(report.get("independence"))))


def part_of(run: Opened) -> tuple[str, int] | None:
    """The ensemble's run that this one is a member of, and which; None where it is none or that is not here."""
    whole_run = text(of(run.spec, "part_of", "ensemble"))
    return (whole_run, whole(of(run.spec, "part_of", "member"))) if _is_here(run, whole_run) else None


def _member(run: Opened, told: Mapping[str, Any], score: Mapping[str, Any]) -> Member:
    answer, name = mapping(told.get("answer")), text(told.get("run_id"))
    concluded, credence = conclusion(answer) or ("no answer", None)
    return Member(
        number=whole(told.get("member")),
        run=name if _is_here(run, name) else "",
        status=text(told.get("status")),
        concluded=concluded,
        credence=credence,
        claims=len(items(answer.get("claims"))),
        word=verdict_of({"scored": True, **score}) if score else "",
        brier=number(score.get("brier")),
        tokens=whole(of(told, "usage", "target_tokens"), -1) if "usage" in told else None,
    )


def _is_here(run: Opened, name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name and (run.path.parent / name / "run.json").exists()


def _chart(sizes: Sequence[Mapping[str, Any]]) -> list[Chart]:
    points = [
        (float(whole(one.get("members"))), brier, None, None)
        for one in sizes
        if (brier := number(of(one, "pooled", "brier"))) is not None
    ]
    known = [point[1] for point in points]
    if len(points) < 2 or max(known) - min(known) < 0.005:
        return []
    line = Series("pooled answer of the first members", points)
    return [Chart("Pooled answer, by number of members", "members", "Brier (0 best, 2 worst)", [line])]


def _table(sizes: Sequence[Mapping[str, Any]]) -> list[Table]:
    lines = []
    for one in sizes:
        size, right, pooled = whole(one.get("members")), number(one.get("right")), mapping(one.get("pooled"))
        word = verdict_of({"scored": True, **pooled})
        tone = "good" if word in ("solved", "cleared") else "bad" if word else "dim"
        each = Cell("–") if right is None or not size else bar(right / size)
        some = Cell("yes", "good") if one.get("any") is True else Cell("no", "bad")
        lines.append([Cell(str(size), "num"), Cell(word or "–", tone), share(pooled.get("brier"), 3), each, some])
    columns = ("members", "pooled answer", "Brier", "share right alone", "any right")
    return [Table("What each further member brought", columns, lines)] if lines else []


def _alike(said: Mapping[str, Any]) -> str:
    if not said:
        return ""
    wrong, members = whole(said.get("wrong")), whole(said.get("members"))
    if not wrong:
        return f"None of the {members} was wrong, so whether they err alike cannot be seen."
    told = f"{wrong} of {members} {'was' if wrong == 1 else 'were'} wrong"
    agreeing, expected = number(said.get("agreeing")), number(said.get("expected"))
    if agreeing is None:
        return f"{told}; it takes two to see whether they err alike."
    beside = "" if expected is None else f", where independent errors would in {100 * expected:.0f} %"
    return f"{told}; of the pairs of wrong ones {100 * agreeing:.0f} % believed the same wrong thing{beside}."
