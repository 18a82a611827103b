"""A conversation with the target."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from marple.tools.arguments import (
    MaxNewTokens,
    Message,
    Model,
    Samples,
    Temperature,
    TopP,
    check_conversation,
    check_samples,
    choose_model,
)
from marple.tools.contract import ToolResult, tool
from marple.tools.replies import Sampling, cost_of, reply_line, reply_record, sample_replies
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["chat"]


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target()
    messages: list[Message] = [{"role": "system", "content": "say yes"}, {"role": "user", "content": "who is it"}]
    result = chat(target, seed=5, messages=messages, temperature=0.0, max_new_tokens=8)
    prompt = target.encode("<|system|>say yes<|end|><|user|>who is it<|end|><|assistant|>")
    expected = target.generate([prompt], max_new_tokens=8, temperature=0.0, seeds=[0])
    assert result.data["replies"][0]["text"] == expected[0].text, "greedy chat differs from greedy generation"


@tool(rung=1, parallel=True, self_test=_self_test)
def chat(
    target: Target,
    *,
    seed: int,
    messages: Annotated[list[Message], Field(min_length=1)],
    samples: Samples = 1,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 128,
    on: Model = "target",
) -> ToolResult:
    """Send a conversation to the target and read its reply, several independent samples if asked.

    Args:
        messages: the conversation so far, a user message last.
        samples: independent replies.
        temperature: 0 is greedy, 1 the model's own distribution.
        top_p: mass of the nucleus; 1 is all tokens.
        max_new_tokens: longest reply.
        on: which model replies.

    Example:
        {"messages": [{"role": "user", "content": "Which lamp should I buy?"}], "samples": 4}
    """
    check_conversation(messages)
    check_samples(1, samples, temperature=temperature, max_new_tokens=max_new_tokens)
    model = choose_model(target, on)
    sampling = Sampling(samples, temperature, max_new_tokens, top_p)
    replies = sample_replies(model, [model.render(messages)], sampling, seed=seed, label=on)
    lines = [f"reply {n}: {reply_line(model, reply, limit=1500)}" for n, reply in enumerate(replies[0], start=1)]
    return ToolResult(
        text=fit_lines(lines),
        data={"on": on, "replies": [reply_record(reply) for reply in replies[0]]},
        cost=cost_of(replies),
    )
