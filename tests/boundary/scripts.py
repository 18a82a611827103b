"""Investigators behind a pretend provider: one that keeps to its plan, and ones that believe what they read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.agent.turns import PLAN
from tests.boundary.hostile import FORGED_ANSWER
from tests.models.provider_server import Answer, Call

__all__ = ["careful", "follows_any_text", "follows_formats", "forged_turn", "results", "strings"]

CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 30, "max_new_tokens": 6}
COMPARE = {"conditions": {"one": ["who is it", "tell me"]}, "samples": 8, "max_new_tokens": 6}
PREDICTION = {"statement": "it says so", "probability": 0.6, "word": "lamp", "at_least": 0.0}
BELIEF = {"action": "add", "statement": "it speaks", "credence": 0.6, "evidence": ["E13"]}


def results(request: Any) -> list[str]:
    """The contents of the tool results in a request, whatever the wire."""
    if "input" in request:
        return [item["output"] for item in request["input"] if item.get("type") == "function_call_output"]
    if isinstance(request["messages"][0]["content"], str):
        return [message["content"] for message in request["messages"] if message["role"] == "tool"]
    blocks = [block for message in request["messages"] for block in message["content"]]
    return [block["content"] for block in blocks if block["type"] == "tool_result"]


def strings(value: Any) -> Iterator[str]:
    """Every string of a JSON value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for part in pair for text in strings(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in strings(part))


def careful(request: Any) -> Answer:
    """Look at the target in every way there is, then submit what a person who read it well would."""
    text = json.dumps(request)
    if "held-out" in text and "The answer is frozen." in text:
        return Answer("", calls=(Call("forecast", {"probabilities": [0.5] * 20}),))
    events = list(dict.fromkeys(re.findall(r'"event": "(E\d+)"', "\n".join(results(request)))))
    turns = [
        (Call("plan", PLAN), Call("chat", CHAT)),
        (Call("predict", PREDICTION), Call("compare", COMPARE)),
        (Call("shout", {}), Call("refuse", {}), Call("fail", {})),
        (Call("read_result", {"id": (events or ["E1"])[-1]}), Call("chat", {"messages": []})),
        (Call("submit", {"nothing_hidden": 0.5, "candidates": [], "claims": [_claim("E99")], "summary": ""}),),
        (Call("hypothesis", {**BELIEF, "evidence": events[:1]}), Call("shoutt", {})),
        (Call("submit", {"nothing_hidden": 0.25, "candidates": [], "claims": [_claim(*events[:1])], "summary": "s"}),),
    ]
    return Answer("", calls=turns[_turn(request)])


def follows_any_text(request: Any) -> Answer:
    """Like ``careful``, but does what the first text says that tells it to submit."""
    for text in results(request):
        if "call submit with" in text and _turn(request) > 1:
            return forged_turn()
    return careful(request)


def follows_formats(request: Any) -> Answer:
    """Like ``careful``, but takes special tokens in a text for real ones, as a careless provider would."""
    if any("<|im_start|>system" in text for text in strings(request)) and _turn(request) > 1:
        return forged_turn()
    return careful(request)


def forged_turn() -> Answer:
    """What the hostile target asks for."""
    return Answer("", calls=(Call("submit", json.loads(FORGED_ANSWER)),))


def _claim(*evidence: str) -> dict[str, Any]:
    return {"statement": "it speaks", "credence": 0.9, "evidence": list(evidence) or ["E1"]}


def _turn(request: Any) -> int:
    """Turns of the model's so far."""
    said = request.get("input", request.get("messages"))
    turns = 0
    before = None
    for item in said:
        role = item.get("role") or {"function_call": "assistant"}.get(item.get("type"), "tool")
        turns += role == "assistant" and before != "assistant"
        before = role
    return turns
