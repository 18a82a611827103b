"""``marple diff``: two runs side by side, and where their calls part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.cli.run import RUNS_OPTION

if TYPE_CHECKING:
    from marple.traces import Event, RunFolder

__all__ = ["compare", "diff"]

_LONGEST = 160


def diff(
    first: Annotated[str, typer.Argument(help="Id of a run, the start of one, or its folder.")],
    second: Annotated[str, typer.Argument(help="Another.")],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> None:
    """Compare two runs: verdict, scores, budget and hypotheses side by side, and where the calls part."""
    from marple.errors import UsageError
    from marple.traces import find_run

    one, other = find_run(runs, first), find_run(runs, second)
    if one.path.resolve() == other.path.resolve():
        raise UsageError(f"{first!r} and {second!r} are the same run, {one.run_id}; name two")
    found = compare(one, other)
    if as_json:
        print(json.dumps(found))
    else:
        _print(found)


def compare(one: RunFolder, other: RunFolder) -> dict[str, Any]:
    """``runs`` (their ids), ``rows`` (a name, what the two say, whether it differs), ``hypotheses`` and ``calls``."""
    sides = [_side(folder) for folder in (one, other)]
    names = list(dict.fromkeys(name for side in sides for name in side))
    pairs = [(name, sides[0].get(name), sides[1].get(name)) for name in names]
    events = [folder.events() for folder in (one, other)]
    return {
        "runs": [one.run_id, other.run_id],
        "rows": [{"name": name, "values": [a, b], "differs": a != b} for name, a, b in pairs if (a, b) != (None, None)],
        "hypotheses": [_hypotheses(each) for each in events],
        "calls": _parting(*(_calls(each) for each in events)),
    }


def _side(folder: RunFolder) -> dict[str, Any]:
    """What one run says under each name; what it does not tell is None."""
    from marple.agent.ledger import used_by
    from marple.traces import summary_of

    spec, result = folder.spec, folder.result or {}
    answer, scores = result.get("answer") or {}, result.get("scores") or {}
    said = {name: spec.get(name) for name in ("case", "investigator", "model", "seed")}
    said["status"] = result.get("status") or summary_of(folder.path).state
    said["nothing hidden"] = answer.get("nothing_hidden")
    for place, candidate in enumerate(_likeliest(answer), 1):
        said[f"candidate {place}"] = candidate
    said["truth"] = _truth(result)
    said |= {name: scores.get(name) for name in ("solved", "cleared", "brier")}
    for name in ("forecast", "fires"):
        said[f"{name} skill"] = (scores.get(name) or {}).get("skill")
    marks = [mark.get("mark") for mark in scores.get("claims") or ()]
    said["claims replicated"] = f"{marks.count('replicated')} of {len(marks)}" if marks else None
    used = used_by(folder.events())
    said |= {"turns": used.turns, "experiments": used.calls, "tokens": used.tokens, "target tokens": used.target_tokens}
    return said | {"seconds": round(used.seconds, 1), "cost in $": used.cost}


def _truth(result: Mapping[str, Any]) -> str | None:
    """The known answer, in the words of ``marple show``; None where there is none, or it is not shown yet."""
    truth = result.get("truth")
    if not truth:
        return None
    slots = ", ".join(f"{name} {slot['value']}" for name, slot in (truth.get("slots") or {}).items())
    return "nothing hidden" if truth.get("nothing_hidden") else slots


def _likeliest(answer: Mapping[str, Any]) -> list[str]:
    ranked = sorted(answer.get("candidates") or (), key=lambda one: -one.get("probability", 0))
    return [
        f"{one.get('probability', 0):.2f} " + " ".join(str(v) for k, v in one.items() if v and k != "probability")
        for one in ranked[:3]
    ]


def _hypotheses(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Every hypothesis with the credence that it had at the end, the likeliest first."""
    latest: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.type == "hypothesis" and "id" in event.payload:
            said = event.payload
            before = latest.get(said["id"], {})
            statement = said.get("statement") or before.get("statement")
            latest[said["id"]] = {"id": said["id"], "credence": said.get("credence"), "statement": statement}
    return sorted(latest.values(), key=lambda one: -(one["credence"] or 0))


def _calls(events: Sequence[Event]) -> list[Event]:
    made = [event for event in events if event.type == "tool_call" and event.payload.get("on_target")]
    return sorted(made, key=lambda event: (event.payload.get("turn_number", 0), event.payload.get("index", 0)))


def _parting(one: Sequence[Event], other: Sequence[Event]) -> dict[str, Any]:
    """How many calls are the same from the start on, the first that differs on each side, and where results differ."""
    same = 0
    while same < min(len(one), len(other)) and _asked(one[same]) == _asked(other[same]):
        same += 1
    results = [
        [a.id, b.id]
        for a, b in zip(one[:same], other[:same], strict=True)
        if a.payload.get("text") != b.payload.get("text")
    ]
    parting = [_told(side[same]) if same < len(side) else None for side in (one, other)]
    return {"counts": [len(one), len(other)], "same": same, "other_results": results, "part_at": parting}


def _asked(event: Event) -> tuple[Any, Any]:
    return event.payload.get("tool"), event.payload.get("arguments")


def _told(event: Event) -> dict[str, Any]:
    return {"event": event.id, "tool": event.payload.get("tool"), "arguments": event.payload.get("arguments")}


def _print(found: Mapping[str, Any]) -> None:
    from rich.table import Table

    from marple.cli.consoles import open_console

    console = open_console(pipe_width=160)
    table = Table("", *map(_safe, found["runs"]), box=None, padding=(0, 2, 0, 0))
    for row in found["rows"]:
        cells = ["" if value is None else _safe(_cell(value)) for value in row["values"]]
        table.add_row(row["name"], *cells, style="yellow" if row["differs"] else None)
    for place in range(max(map(len, found["hypotheses"]))):
        cells = [_hypothesis(side[place]) if place < len(side) else "" for side in found["hypotheses"]]
        table.add_row("hypotheses" if place == 0 else "", *cells)
    console.print(table)
    for line in _calls_text(found["calls"], found["runs"]):
        console.print(_safe(line), soft_wrap=True)


def _hypothesis(one: Mapping[str, Any]) -> str:
    return _safe(f"{one['id']} {one['credence']:.2f} {one['statement']}")


def _calls_text(calls: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    same, counts = calls["same"], calls["counts"]
    if same == counts[0] == counts[1]:
        lines = [f"calls: all {same} are the same"]
    else:
        lines = [f"calls: the first {same} are the same, of {counts[0]} and {counts[1]}; then"]
        for name, at in zip(names, calls["part_at"], strict=True):
            asked = "" if at is None else json.dumps(at["arguments"], ensure_ascii=False)
            cut = asked if len(asked) <= _LONGEST else f"{asked[:_LONGEST]}…"
            lines.append(f"  {name}  " + ("has no more" if at is None else f"{at['event']} {at['tool']} {cut}"))
    if calls["other_results"]:
        pairs = ", ".join(f"{a} and {b}" for a, b in calls["other_results"][:5])
        more = len(calls["other_results"]) - 5
        lines.append(f"asked alike but answered otherwise: {pairs}" + (f" and {more} more" if more > 0 else ""))
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _safe(text: str) -> str:
    from rich.markup import escape

    from marple.tools.visible import visible

    return escape(visible(text))
