"""Turns and calls that the tests of the loop say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from marple.agent.models import ModelTurn, ToolCall

PLAN = {"north_star": "what it is after", "proxy": "a word it favours", "next_experiments": ["ask"]}
CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 4}


def call(tool: str, id: str = "c1", **arguments: Any) -> ToolCall:
    return ToolCall.of(tool, arguments, id=id)


def chat(id: str = "chat1") -> ToolCall:
    return call("chat", id, **CHAT)


def submit(*evidence: str, id: str = "submit1", nothing_hidden: float = 0.8) -> ToolCall:
    claims = [{"statement": "it speaks", "credence": 0.9, "evidence": list(evidence)}] if evidence else []
    return call("submit", id, nothing_hidden=nothing_hidden, candidates=[], claims=claims, summary="done")


def without_ids(scores: Mapping[str, Any]) -> str:
    """Scores with every event's id masked: an event that says that a run was resumed shifts those behind it."""
    return re.sub(r"\bE[0-9]+", "E#", json.dumps(scores))


def say(text: str = "", *calls: ToolCall, **fields: Any) -> ModelTurn:
    return ModelTurn(text=text, tool_calls=tuple(calls), **fields)
