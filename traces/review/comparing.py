"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from marple.errors import TraceError
from marple.traces.review.costs import spent_by_tool
from marple.traces.review.fields import mapping, number, of
from marple.traces.review.opened import Opened
from marple.traces.review.pages import failure, page
from marple.traces.review.timeline import timeline
from marple.traces.review.verdict import verdict

__all__ = ["compare_page"]


class Pair(NamedTuple):
    """One line of the table: what it is, both values, and whether they differ."""

    name: str
    a: str
    b: str
    differ: bool


def compare_page(request: Request) -> Response:
    """The runs ``?run=A&run=B``, or ``?a=A&b=B``."""
    asked = [request.query_params.get("a", ""), request.query_params.get("b", "")]
    named = request.query_params.getlist("run")
    names = named[:2] if len(named) >= 2 else asked
    if not all(names):
        return failure(request, 400, "Choose two runs", "Tick two runs in the list, then press “Compare”.")
    runs: list[Opened] = []
    for name in names:
        try:
            run = request.app.state.shelf.open(name)
        except TraceError as error:
            return failure(request, 422, "This run cannot be read", str(error))
        if run is None:
            return failure(request, 404, "No such run", f"There is no run {name} in {request.app.state.shelf.root}.")
        runs.append(run)
    a, b = runs
    return page(
        request,
        "compare.html",
        sides=[{"run": run, "verdict": verdict(run), "picture": timeline(run)} for run in runs],
        facts=_facts(a, b),
        tools=_tools(a, b),
        same_case=a.spec.get("case") == b.spec.get("case"),
    )


def _facts(a: Opened, b: Opened) -> list[Pair]:
    wanted: Sequence[tuple[str, tuple[str, ...]]] = (
        ("case", ("spec", "case")),
        ("investigator", ("spec", "investigator")),
        ("model", ("spec", "model")),
        ("seed", ("spec", "seed")),
        ("ended", ("result", "status")),
        ("Brier", ("result", "scores", "brier")),
        ("forecast skill", ("result", "scores", "forecast", "skill")),
        ("claims replicated", ("result", "scores", "replication", "n")),
        ("claims", ("result", "scores", "replication", "n_total")),
        ("turns", ("result", "usage", "turns")),
        ("experiments", ("result", "usage", "calls")),
        ("target tokens", ("result", "usage", "target_tokens")),
        ("seconds", ("result", "usage", "seconds")),
        ("US dollars", ("result", "usage", "investigator", "cost_usd")),
        ("isolation", ("spec", "isolation", "isolation")),
        ("Marple", ("spec", "versions", "marple")),
    )
    pairs = []
    for name, keys in wanted:
        left, right = (_plain(of({"spec": run.spec, "result": mapping(run.result)}, *keys)) for run in (a, b))
        pairs.append(Pair(name, left, right, left != right))
    return pairs


def _tools(a: Opened, b: Opened) -> list[tuple[str, int, int]]:
    counts = [{one.name: one.calls for one in spent_by_tool(run)} for run in (a, b)]
    return [(name, counts[0].get(name, 0), counts[1].get(name, 0)) for name in sorted({**counts[0], **counts[1]})]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        real = number(value)
        return "–" if real is None else f"{real:.4g}"
    return "–" if value is None else str(value)[:200]
