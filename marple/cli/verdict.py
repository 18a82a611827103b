"""The verdict of a run, in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marple.cli.event_lines import event_line
from marple.tools.visible import visible
from marple.traces import RunFolder

__all__ = ["print_verdict"]

_CITED = 8
"""Cited calls that are shown."""

_HANDED_IN = 90
"""Characters shown of a part of an answer that no line of its own is for."""

_TOLD_APART = ("yes", "candidates", "claims", "summary")


def print_verdict(result: Mapping[str, Any], path: Path, *, console: Console | None = None) -> None:
    """Print what was concluded, whether it is right where that is known, and where the evidence lies."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # a log file has no edge to fold at
    head = f"{result['investigator']} · seed {result['seed']} · {result['status']}"
    console.print(f"\n[bold]{_safe(result['case'])}[/] · {_safe(head)}")
    if result["status"] == "cancelled":
        console.print("  cancelled: not scored, and cannot be resumed")
    answer = result["answer"]
    if answer is None:
        console.print("  no answer")
    else:
        _print_answer(console, answer, result["scores"].get("claims", ()))
        _print_cited(console, answer, path)
    if result["truth"] is not None:
        _print_scores(console, result)
    usage = result["usage"]
    console.print(
        f"  used       {usage['turns']} turns, {usage['calls']} experiments, "
        f"{usage['target_tokens']:,} target tokens{_of_target(usage)}, {usage['seconds']:.0f} s, {_money(usage)}"
    )
    if result.get("sandbox"):
        console.print(f"  isolation  {_safe(_isolation(result['sandbox']))}")
    console.print(f"  run        {_safe(str(path))}", soft_wrap=True)


def _print_answer(console: Console, answer: Mapping[str, Any], marks: Sequence[Mapping[str, str]]) -> None:
    for name, value in answer.items():
        if name.startswith("nothing_") and isinstance(value, float | int):
            console.print(f"  {name.replace('_', ' ')}: {value:.2f}")
    if answer.get("yes") is not None:
        console.print(f"  yes: {answer['yes']:.2f}")
    for candidate in sorted(answer.get("candidates", ()), key=lambda c: -c["probability"])[:3]:
        console.print(f"  {candidate['probability']:.2f}  {_safe(_candidate(candidate))}")
    for name, value in answer.items():
        if name not in _TOLD_APART and not name.startswith("nothing_") and value not in (None, "", [], {}):
            console.print(f"  {_safe(name)}: {_safe(_in_short(value))}")
    if answer["claims"]:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for number, claim in enumerate(answer["claims"]):
            table.add_row(
                "  claim", f"{claim['credence']:.2f}", _safe(claim["statement"]), _safe(_some(claim["evidence"]))
            )
            if number < len(marks):
                table.add_row("", "", _mark(marks[number]), "")
        console.print(table)


def _in_short(value: Any) -> str:
    """What else is handed in, on one line: how many for a list, and how it begins."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = text if len(text) <= _HANDED_IN else f"{text[:_HANDED_IN]}…"
    return f"{len(value)}: {cut}" if isinstance(value, list) else cut


def _candidate(candidate: Mapping[str, Any]) -> str:
    """A hypothesis on one line: what, and when where it says so."""
    what = " ".join(str(value) for name, value in candidate.items() if value and name not in ("probability", "trigger"))
    return ", when: ".join(part for part in (what, candidate.get("trigger")) if part)


def _print_cited(console: Console, answer: Mapping[str, Any], path: Path) -> None:
    """What the claims rest on, as the log of the run has it: an id stands for the call, whatever was said of it."""
    cited = dict.fromkeys(evidence for claim in answer["claims"] for evidence in claim["evidence"])
    events = {event.id: event for event in RunFolder.open(path).events() if event.type == "tool_call"} if cited else {}
    for evidence in list(cited)[:_CITED]:
        line = event_line(events[evidence]) if evidence in events else "no such call in this run"
        console.print(f"  {_safe(evidence):>5}  {escape(line)}", overflow="ellipsis", no_wrap=True)
    if len(cited) > _CITED:
        console.print(f"         and {len(cited) - _CITED} more")


def _print_scores(console: Console, result: Mapping[str, Any]) -> None:
    truth, scores = result["truth"], result["scores"]
    slots = ", ".join(f"{name} {slot['value']}" for name, slot in truth["slots"].items())
    console.print(f"  truth      {'nothing hidden' if truth['nothing_hidden'] else _safe(slots)}")
    if not scores["scored"]:
        console.print("  not scored")
        return
    name, verdict = ("solved", scores["solved"]) if scores["cleared"] is None else ("cleared", scores["cleared"])
    mark = "[green]yes[/]" if verdict else "[red]no[/]"
    brier = f"   Brier {scores['brier']:.3f} (0 best, 2 worst)" if "brier" in scores else ""
    console.print(f"  {name:10} {mark}{brier}{_own_score(scores)}")
    forecast, fires = scores.get("forecast"), scores.get("fires")
    if fires and fires["n"]:
        told = "nothing to tell apart" if fires["skill"] is None else f"skill {fires['skill']:+.2f}"
        console.print(f"  fires      Brier {fires['brier']:.3f}, {told} on {fires['n']} of {fires['n_total']} prompts")
    if forecast and forecast["n"]:
        where = ""
        if forecast.get("n_on_trigger"):
            where = f", {forecast['skill_on_trigger']:+.2f} on the {forecast['n_on_trigger']} that the goal is about"
        console.print(
            f"  forecasts  {forecast['accuracy']:.2f} right, skill {forecast['skill']:+.2f} "
            f"on {forecast['n']} of {forecast['n_total']} held-out prompts{where}"
        )


def _own_score(scores: Mapping[str, Any]) -> str:
    """The number by which a kind judges what is handed in, where it has one."""
    if scores.get("average_precision") is not None:
        chance = scores.get("base_rate")
        beside = "" if chance is None else f" (1 best, {chance:.2f} by chance)"
        return f"   average precision {scores['average_precision']:.2f}{beside}"
    return "" if scores.get("score") is None else f"   score {scores['score']:.2f} (1 best)"


def _safe(text: str) -> str:
    return escape(visible(text))


def _mark(said: Mapping[str, str]) -> str:
    colour = {"replicated": "green", "not re-runnable": "yellow"}.get(said["mark"], "red")
    return f"[{colour}]{_safe(said['mark'])}[/]: {_safe(said['reason'])}"


def _isolation(stamp: Mapping[str, Any]) -> str:
    warnings = len(stamp.get("warnings", ()))
    more = f", {warnings} warning{'s' if warnings > 1 else ''} (marple sandbox probe)" if warnings else ""
    memory = stamp.get("memory", {}).get("by")
    held = f"; files: {stamp.get('filesystem')}, network: {stamp.get('network')}, memory held by {memory}"
    return f"{stamp.get('backend')}, {stamp.get('isolation')}{held if memory else ''}{more}"


def _some(ids: Sequence[str], most: int = 4) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def _of_target(usage: Mapping[str, Any]) -> str:
    """What the tokens of an endpoint cost; nothing is said of a target of one's own."""
    cost = usage.get("target_cost_usd", 0.0)
    return " (price unknown)" if cost is None else f" (${cost:.2f})" if cost else ""


def _money(usage: Mapping[str, Any]) -> str:
    cost = usage["investigator"]["cost_usd"]
    return "price unknown" if cost is None else f"${cost:.2f}"
