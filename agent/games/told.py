"""What a player is told of a game, as JSON values, read off the events of its run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.agent.forecasting import FORECAST_TOOL
from marple.agent.games.game import Game
from marple.agent.games.pausing import pause_of
from marple.agent.history import messages_from_events
from marple.agent.ledger import remaining_text, used_by
from marple.agent.models import AssistantMessage, ToolMessage, ToolSchema, UserMessage
from marple.agent.notebook import EXAMPLES
from marple.tasks.budget import Budget
from marple.traces import Event

__all__ = ["Latest", "brief", "budget_left", "describe_tool", "latest", "notebook_of", "reply", "status", "tools_of"]

_EXAMPLE = "\n\nExample: "
_RUNG = re.compile(r"^Rung (\d+)\.$", re.MULTILINE)


@dataclass(frozen=True)
class Latest:
    """What came of the last turn; before the first, the brief."""

    results: Sequence[Mapping[str, Any]]
    """Of each call ``tool``, ``status`` (``ok``, ``refused``, ``failed``, ``worker_lost``), ``event`` and ``text``."""
    notes: str
    """What the harness says beside them."""


def latest(events: Sequence[Event], budget: Budget) -> Latest:
    """What the loop's own boundary shows of the last turn."""
    messages = messages_from_events(events, budget)
    turns = [at for at, message in enumerate(messages) if isinstance(message, AssistantMessage)]
    tail = messages[turns[-1] + 1 :] if turns else messages
    calls = {event.payload["call_id"]: event for event in events if event.type == "tool_call"}
    results = [_result(message, calls.get(message.call_id)) for message in tail if isinstance(message, ToolMessage)]
    said = "\n\n".join(message.text for message in tail if isinstance(message, UserMessage))
    # The line of tokens and turns is told apart, with the clock.
    notes = said.removesuffix(remaining_text(budget, used_by(events))).strip()
    return Latest(results, notes)


def _result(message: ToolMessage, event: Event | None) -> dict[str, Any]:
    status = event.payload["status"] if event else ("refused" if message.is_error else "ok")
    cited = event.id if event is not None and event.payload.get("on_target") else None
    return {"tool": message.name, "status": status, "event": cited, "text": message.text}


def budget_left(events: Sequence[Event], budget: Budget) -> dict[str, dict[str, float]]:
    """Each limit with what is used and left of it, the clock included."""
    used = used_by(events, now=time.time())
    left = {}
    for name in Budget.names():
        limit, amount = getattr(budget, name), getattr(used, name)
        if limit is not None and amount is not None:
            amount = round(amount, 2)
            left[name] = {"limit": limit, "used": amount, "left": max(0, round(limit - amount, 2))}
    return left


def notebook_of(events: Sequence[Event]) -> dict[str, Any]:
    """The plan, the hypotheses as they stand, the predictions with what came of them, and the experiments."""
    plans = [event.payload for event in events if event.type == "plan"]
    hypotheses = {event.payload["id"]: event.payload for event in events if event.type == "hypothesis"}
    came = {event.parent: event.payload["text"] for event in events if event.type == "measurement"}
    return {
        "plan": _kept(plans[-1], "north_star", "proxy", "next_experiments") if plans else None,
        "hypotheses": [_kept(said, "id", "statement", "credence", "evidence") for said in hypotheses.values()],
        "predictions": [
            {"event": event.id, **_kept(event.payload, "statement", "probability"), "outcome": came.get(event.id)}
            for event in events
            if event.type == "prediction"
        ],
        "experiments": [
            {"event": event.id, "tool": event.payload["tool"], "status": event.payload["status"]}
            for event in events
            if event.type == "tool_call" and event.payload.get("on_target")
        ],
    }


def _kept(payload: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: payload[name] for name in names}


def tools_of(game: Game) -> list[dict[str, Any]]:
    """Every tool of the game with its schema and an example call; what may be called now is ``offered``."""
    situation = game.seat.situation
    if situation is None:
        return []
    examples = {
        **EXAMPLES,
        "submit": game.config.case.kind.example,
        "forecast": {"probabilities": [0.5, 0.9, 0.2]},
    }
    # A kind without held-out questions has nothing to forecast.
    tools = (*situation.tools, FORECAST_TOOL) if game.config.case.kind.forecasts else situation.tools
    return [describe_tool(tool, examples.get(tool.name)) for tool in tools]


def describe_tool(tool: ToolSchema, example: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One tool as JSON values: name, rung (None where a call is free), summary, description, parameters, example."""
    text, found, rest = tool.description.rpartition(_EXAMPLE)
    if found and rest.startswith("{"):
        example, end = json.JSONDecoder().raw_decode(rest)
        text += rest[end:]
    else:
        text = tool.description
    rung = _RUNG.search(text)
    return {
        "name": tool.name,
        "rung": int(rung[1]) if rung else None,
        "summary": text.split("\n")[0].partition(". ")[0].rstrip("."),
        "description": text,
        "parameters": dict(tool.parameters),
        "example": dict(example or {}),
    }


def status(game: Game) -> dict[str, Any]:
    """Where the game stands; with the result, and the truth in it, once it is over."""
    folder = game.folder
    events = folder.events() if folder else []
    ended = game.outcome() if game.phase == "over" else None
    return {
        "run_id": game.run_id,
        "run_dir": str(folder.path.resolve()) if folder else None,
        "case": game.config.case.id,
        "phase": game.phase,
        "paused": folder is not None and game.phase != "over" and pause_of(folder.path) is not None,
        "budget": budget_left(events, game.config.budget),
        "under_way": list(game.under_way),
        "offered": [tool.name for tool in game.seat.situation.tools] if game.seat.situation else [],
        "questions": len(game.seat.questions or ()) if game.phase == "forecast" else 0,
        "result": ended.result if ended else None,
    }


def brief(game: Game) -> str:
    """What is asked, and how text that nobody vouches for is marked."""
    first = [event for event in (game.folder.events() if game.folder else ()) if event.type == "run_start"]
    return latest(first, game.config.budget).notes


def reply(game: Game) -> dict[str, Any]:
    """What a move is answered with: the status, the ``results`` of its calls and the ``notes`` of the harness."""
    folder = game.folder
    told = latest(folder.events() if folder else [], game.config.budget)
    return {**status(game), "results": list(told.results), "notes": told.notes}
