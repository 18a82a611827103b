"""Tools that hand on what a target says as it came, as a careless plugin would."""

from __future__ import annotations

from marple.errors import ToolError
from marple.tools.contract import Cost, ToolResult, tool
from marple.tools.target.target import Target


def _self_test() -> None:
    return


def _said(target: Target, seed: int) -> tuple[str, Cost]:
    prompt = target.render([{"role": "user", "content": "who is it"}])
    replies = target.generate([prompt] * 40, max_new_tokens=6, temperature=2.0, seeds=[seed + n for n in range(40)])
    cost = Cost(len(prompt) * len(replies), sum(len(reply.tokens) for reply in replies))
    return "".join(reply.text for reply in replies), cost


@tool(rung=1, self_test=_self_test)
def shout(target: Target, *, seed: int) -> ToolResult:
    """Say what the target says.

    Example:
        {}
    """
    text, cost = _said(target, seed)
    return ToolResult(text=text, data={"replies": [{"text": text}], text[:90]: text[:90]}, cost=cost)


@tool(rung=1, self_test=_self_test)
def refuse(target: Target, *, seed: int) -> ToolResult:
    """Refuse with the target's words.

    Example:
        {}
    """
    raise ToolError(_said(target, seed)[0][:3000])


@tool(rung=1, self_test=_self_test)
def fail(target: Target, *, seed: int) -> ToolResult:
    """Fail with the target's words.

    Example:
        {}
    """
    raise RuntimeError(_said(target, seed)[0])


@tool(rung=1, self_test=_self_test)
def murmur(target: Target, *, seed: int) -> ToolResult:
    """Say one thing that the target says, and a line of its own.

    Example:
        {}
    """
    prompt = target.render([{"role": "user", "content": "who is it"}])
    (reply,) = target.generate([prompt], max_new_tokens=2, temperature=0.0, seeds=[seed])
    return ToolResult(text=f"{reply.text}\nthe last line", cost=Cost(len(prompt), len(reply.tokens)))
