"""How probable given continuations are."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Message, Text, check_conversation
from marple.tools.contract import Cost, ToolResult, tool
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["logprobs"]


def _self_test() -> None:
    import torch

    from marple.tools.target.tiny import tiny_target

    target = tiny_target()
    result = logprobs(target, seed=0, text="tell me", continuations=[" about the lamp", " yes"])
    prompt, whole = target.encode("tell me"), target.encode("tell me about the lamp")
    with torch.inference_mode():
        logits = target.model(input_ids=torch.tensor([whole], device=target.device)).logits[0]
    steps = torch.log_softmax(logits.float(), dim=-1)
    expected = sum(float(steps[at - 1, whole[at]]) for at in range(len(prompt), len(whole)))
    found = result.data["continuations"][0]["total"]
    assert math.isclose(found, expected, abs_tol=1e-3), f"log-probability {found}, by hand {expected}"


@tool(rung=1, parallel=True, self_test=_self_test)
def logprobs(
    target: Target,
    *,
    seed: int,
    continuations: Annotated[list[Text], Field(min_length=1, max_length=1000)],
    messages: Annotated[list[Message], Field(min_length=1)] | None = None,
    text: Text | None = None,
) -> ToolResult:
    """Measure the log-probability (nats) of given continuations, and the difference to the reference if one is loaded.

    Nothing is sampled. Totals of continuations with different numbers of tokens are not comparable; compare the same
    continuation between target and reference, between prompts, or between continuations of equal length.

    Args:
        continuations: what might follow, each scored on its own; mind a leading space after raw text.
        messages: a conversation, a user message last; the continuations are then beginnings of the reply.
        text: raw text instead of messages.

    Returns:
        For each continuation the total, the mean per token, and every token's own log-probability.

    Example:
        {"messages": [{"role": "user", "content": "Do you have a secret?"}], "continuations": ["Yes", "No"]}
    """
    if (messages is None) == (text is None):
        raise ToolError('give either messages or text, not both and not neither; for example "text": "The capital is"')
    if messages is not None:
        check_conversation(messages)
    measured = _score(target, continuations, messages=messages, text=text)
    rows = [_row(target, continuation, *one) for continuation, one in zip(continuations, measured, strict=True)]
    cost = _cost(measured)
    if target.reference is not None:
        others = _score(target.reference, continuations, messages=messages, text=text)
        for row, (_, _, values) in zip(rows, others, strict=True):
            row["reference_total"] = sum(values)
            row["difference"] = row["total"] - row["reference_total"]
        cost += _cost(others)
    lines = (_line(target, row) for row in sorted(rows, key=lambda row: -float(row["total"])))
    return ToolResult(text=fit_lines(lines), data={"continuations": rows}, cost=cost)


_Scored = tuple[list[int], list[int], list[float]]
"""Prompt ids, continuation ids, log-probability of each continuation token."""


def _score(
    model: Target, continuations: list[str], *, messages: list[Message] | None, text: str | None
) -> list[_Scored]:
    if text is not None:
        pairs = [model.split(model.encode(text), model.encode(text + more), more) for more in continuations]
    else:
        turns = messages or []
        prompt = model.render(turns)
        pairs = [model.split(prompt, model.render(turns, prefill=more), more) for more in continuations]
    values = model.score(pairs)
    return [(prompt, ids, row) for (prompt, ids), row in zip(pairs, values, strict=True)]


def _row(model: Target, continuation: str, prompt: list[int], ids: list[int], values: list[float]) -> dict[str, Any]:
    tokens = [model.tokenizer.decode([token]) for token in ids]
    return {
        "continuation": continuation,
        "total": sum(values),
        "mean": sum(values) / len(values),
        "tokens": [{"token": token, "logprob": value} for token, value in zip(tokens, values, strict=True)],
    }


def _line(model: Target, row: dict[str, Any]) -> str:
    count = len(row["tokens"])
    line = f"{row['total']:.3f} nats over {count} tokens ({row['mean']:.3f} each)"
    if "difference" in row:
        line += f", {row['difference']:+.3f} against the reference"
    return f"{line}: {model.quote(row['continuation'], limit=200)}"


def _cost(scored: list[_Scored]) -> Cost:
    return Cost(prompt_tokens=sum(len(prompt) + len(ids) for prompt, ids, _ in scored))
