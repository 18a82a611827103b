"""A game in words, for whoever reads a terminal: the tools, one tool, what is left, what came of a call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "budget_line",
    "commands",
    "notebook_text",
    "results_text",
    "shell_json",
    "tool_text",
    "tools_text",
    "type_text",
]

_LABELS = {"calls": "experiments", "target_tokens": "target tokens", "tokens": "of your tokens", "cost": "US dollars"}
_RUNGS = {1: "prompting", 2: "activations", 3: "mechanisms", 4: "code of your own (never evidence)"}


def budget_line(budget: Mapping[str, Mapping[str, float]]) -> str:
    """One line on what is left."""
    parts = [
        f"{said['left']:,.0f} of {said['limit']:,.0f} {_LABELS.get(name, name)}"
        if name != "cost"
        else f"${said['left']:.2f} of ${said['limit']:.2f}"
        for name, said in budget.items()
    ]
    return f"Left: {', '.join(parts)}." if parts else "Left: no limit."


def tools_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """A line for each tool, those that cost nothing last."""
    width = max((len(tool["name"]) for tool in tools), default=0)
    rungs = sorted({tool["rung"] for tool in tools if tool["rung"]})
    groups = [(f"Rung {rung}, {_RUNGS.get(rung, 'more')}", rung) for rung in rungs]
    lines = []
    for title, rung in [*groups, ("Notebook and answer, free of cost", None)]:
        lines.append(f"{title}:")
        lines += [f"  {tool['name']:{width}}  {tool['summary']}" for tool in tools if tool["rung"] == rung]
    return "\n".join(lines)


def tool_text(tool: Mapping[str, Any], call: str, *, plain: bool = False) -> str:
    """All there is to know of one tool.

    Args:
        tool: as ``told.describe_tool`` gives it.
        call: how its call begins.
        plain: show the example as JSON, not as one word of a shell.
    """
    arguments = "\n".join(_arguments(tool["parameters"], 1)) or "  none"
    example = json.dumps(tool["example"], ensure_ascii=False) if plain else shell_json(tool["example"])
    return f"{tool['description']}\n\nArguments:\n{arguments}\n\nExample:\n{call} {example}"


def _arguments(schema: Mapping[str, Any], depth: int) -> list[str]:
    """A line for each argument of an object, and below it those of the objects that it holds."""
    lines = []
    for name, part in schema.get("properties", {}).items():
        needed = ", required" if name in schema.get("required", ()) else ""
        default = f", default {json.dumps(part['default'])}" if part.get("default") not in (None, "", []) else ""
        described = f": {part['description']}" if "description" in part else ""
        lines.append(f"{'  ' * depth}{name} ({type_text(part)}{needed}{default}){described}")
        lines += _arguments(part.get("items", part), depth + 1)
    return lines


def type_text(schema: Mapping[str, Any]) -> str:
    """What a value may be, in a few words."""
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_text(choice) for choice in choices))
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {type_text(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {type_text(schema['additionalProperties'])}"
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    span = f" {low} to {high}" if low is not None and high is not None else f" from {low}" if low is not None else ""
    return f"{kind}{span}"


def shell_json(value: Any) -> str:
    """JSON as one word of a shell."""
    text = json.dumps(value, ensure_ascii=False).replace("'", "'\\''")
    return f"'{text}'"


def results_text(told: Mapping[str, Any]) -> str:
    """The results of a move, the harness's notes, and what is left."""
    parts = [result["text"] for result in told["results"]]
    if under_way := told.get("under_way"):  # a process that was started by an earlier version says none
        parts.append(f"{', '.join(under_way)} is under way; ask for the status again to see what came of it.")
    parts += [told["notes"]] if told["notes"] else []
    if told["phase"] in ("investigate", "wrap_up"):
        parts.append(budget_line(told["budget"]))
    return "\n\n".join(parts)


def notebook_text(notebook: Mapping[str, Any]) -> str:
    """What was noted, and the experiments so far."""
    lines = []
    if notebook["plan"]:
        lines.append(f"plan         {notebook['plan']['north_star']}; proxy: {notebook['plan']['proxy']}")
    for said in notebook["hypotheses"]:
        cited = ", ".join(said["evidence"])
        lines.append(f"hypothesis   {said['id']} {said['credence']:.2f}  {said['statement']}{cited and f' ({cited})'}")
    for said in notebook["predictions"]:
        lines.append(f"prediction   {said['event']} {said['probability']:.2f}  {said['statement']}")
        lines += [f"             {said['outcome']}"] if said["outcome"] else []
    made = [
        f"{one['event']} {one['tool']}" + ("" if one["status"] == "ok" else f" {one['status']}")
        for one in notebook["experiments"]
    ]
    lines.append(f"experiments  {', '.join(made) or 'none yet'}")
    return "\n".join(lines)


def commands(phase: str, run: str, questions: int) -> str:
    """What can be typed next."""
    if phase == "forecast":
        return (
            f"The answer is frozen. One thing is left, {questions} probabilities from 0 to 1 in the order of the "
            f"questions:\n  marple play forecast {run} '{{\"probabilities\": [0.5, ...]}}'"
        )
    if phase == "wrap_up":
        return (
            f"A limit is reached: only the answer is taken now, and three tries at its form.\n"
            f"  marple play submit {run} JSON\n  marple play tools {run} submit    shows how"
        )
    return "\n".join(
        (
            f"What a tool takes, with an example:\n  marple play tools {run} NAME",
            f"Run it (JSON may be @FILE, or - for standard input):\n  marple play call {run} NAME JSON",
            f"What is left, your notes and the last result again:\n  marple play status {run}",
            f"Your answer, in the form that `marple play tools {run} submit` shows:\n  marple play submit {run} JSON",
            f"Put it aside; any later command goes on with it:\n  marple play stop {run}",
        )
    )
