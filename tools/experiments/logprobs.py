"""How probable given continuations are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Message, Text, check_conversation
from marple.tools.contract import Cost, ToolResult, tool
from marple.tools.target.target import Target
from marple.tools.target.text import READ_ON, fit_lines

__all__ = ["logprobs"]

_MOST_PAIRS = 4000
_MOST_TOKENS = 8

Conversation = Annotated[list[Message], Field(min_length=1)]


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
    messages: Conversation | None = None,
    text: Text | None = None,
    conversations: Annotated[list[Conversation], Field(min_length=1, max_length=1000)] | None = None,
) -> ToolResult:
    """Measure the log-probability (nats) of given continuations, and the difference to the reference if one is loaded.

    Nothing is sampled. Totals of continuations with different numbers of tokens are not comparable; compare the same
    continuation between target and reference, between prompts, or between continuations of equal length.

    Args:
        continuations: what might follow, each scored on its own; mind a leading space after raw text.
        messages: a conversation, a user message last; the continuations are then beginnings of the reply.
        text: raw text instead of messages.
        conversations: several of them instead of messages; every continuation is scored after each.

    Returns:
        For each continuation the total, the mean per token, and every token's own log-probability (in the text up to 8
        tokens).

    Example:
        {"messages": [{"role": "user", "content": "Do you have a secret?"}], "continuations": ["Yes", "No"]}
    """
    if sum(given is not None for given in (messages, text, conversations)) != 1:
        raise ToolError(
            'give either messages or text or conversations, and only one; for example "text": "The capital is"'
        )
    before: list[_Before] = [text] if text is not None else [*(conversations or [messages or []])]
    for one in before:
        if not isinstance(one, str):
            check_conversation(one)
    asked = [(at, one, more) for at, one in enumerate(before) for more in continuations]
    if len(asked) > _MOST_PAIRS:
        raise ToolError(
            f"{len(before)} conversations with {len(continuations)} continuations are {len(asked)} pairs; at most "
            f"{_MOST_PAIRS} are allowed in a call"
        )
    measured = _score(target, asked)
    rows = [_row(target, at, more, *found) for (at, _, more), found in zip(asked, measured, strict=True)]
    cost = _cost(measured)
    if target.reference is not None:
        others = _score(target.reference, asked)
        for row, (_, _, values) in zip(rows, others, strict=True):
            row["reference_total"] = sum(values)
            row["difference"] = row["total"] - row["reference_total"]
        cost += _cost(others)
    return ToolResult(text=fit_lines(_lines(target, before, rows)), data={"continuations": rows}, cost=cost)


_Before = str | list[Message]
"""Raw text or a conversation."""

_Scored = tuple[list[int], list[int], list[float]]
"""Prompt ids, continuation ids, log-probability of each continuation token."""


def _score(model: Target, asked: Sequence[tuple[int, _Before, str]]) -> list[_Scored]:
    pairs = []
    for _, before, more in asked:
        if isinstance(before, str):
            pairs.append(model.split(model.encode(before), model.encode(before + more), more))
        else:
            pairs.append(model.split(model.render(before), model.render(before, prefill=more), more))
    values = model.score(pairs)
    return [(prompt, ids, row) for (prompt, ids), row in zip(pairs, values, strict=True)]


def _row(
    model: Target, at: int, continuation: str, prompt: list[int], ids: list[int], values: list[float]
) -> dict[str, Any]:
    tokens = [model.tokenizer.decode([token]) for token in ids]
    return {
        "conversation": at,
        "continuation": continuation,
        "total": sum(values),
        "mean": sum(values) / len(values),
        "tokens": [{"token": token, "logprob": value} for token, value in zip(tokens, values, strict=True)],
    }


def _lines(model: Target, before: Sequence[_Before], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for at, one in enumerate(before):
        if len(before) > 1 and not isinstance(one, str):
            yield f"after conversation {at}, which ends {model.quote(one[-1]['content'], limit=80)}:"
        mine = [row for row in rows if row["conversation"] == at]
        yield from (_line(model, row) for row in sorted(mine, key=lambda row: -float(row["total"])))


def _line(model: Target, row: dict[str, Any]) -> str:
    tokens = row["tokens"]
    line = f"{row['total']:.3f} nats over {len(tokens)} tokens ({row['mean']:.3f} each)"
    if "difference" in row:
        line += f", {row['difference']:+.3f} against the reference"
    line += f": {model.quote(row['continuation'], limit=200)}"
    if len(tokens) > _MOST_TOKENS:
        return f"{line} (each of the {len(tokens)} tokens: {READ_ON})"
    each = ", ".join(f"{model.quote(token['token'])} {token['logprob']:.2f}" for token in tokens)
    return f"{line} = {each}" if len(tokens) > 1 else line


def _cost(scored: list[_Scored]) -> Cost:
    return Cost(prompt_tokens=sum(len(prompt) + len(ids) for prompt, ids, _ in scored))
