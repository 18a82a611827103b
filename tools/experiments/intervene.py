"""Replies under an intervention: a system prompt, edits of the activations, or both."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import (
    MaxNewTokens,
    Message,
    Temperature,
    check_conversation,
    check_samples,
    sample_seed,
)
from marple.tools.contract import Cost, ToolResult, tool
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines
from marple.tools.vectors.edits import Edit, Edits, interventions_of

__all__ = ["intervene"]


def _self_test() -> None:
    import torch

    from marple.tools.target.tiny import tiny_target

    target = tiny_target()
    asked: list[list[Message]] = [[{"role": "user", "content": "who is it"}]]
    plain = intervene(target, seed=1, conversations=asked, temperature=0.0, max_new_tokens=6).data["replies"]
    zero: Edit = {"values": [0.0] * target.d_model, "layer": 0}
    unchanged = intervene(target, seed=1, conversations=asked, edits=[zero], temperature=0.0, max_new_tokens=6)
    assert unchanged.data["replies"] == plain, "an edit by nothing changes a reply"
    drawn = 50 * torch.randn(target.d_model, generator=torch.Generator().manual_seed(1))
    huge: Edit = {"values": drawn.tolist(), "layer": 0}
    changed = intervene(target, seed=1, conversations=asked, edits=[huge], temperature=0.0, max_new_tokens=6)
    assert changed.data["replies"] != plain, "a large edit changes nothing"


@tool(rung=2, parallel=True, family="steering", self_test=_self_test)
def intervene(
    target: Target,
    *,
    seed: int,
    conversations: Annotated[list[Annotated[list[Message], Field(min_length=1)]], Field(min_length=1, max_length=512)],
    edits: Edits = [],  # noqa: B006 - read only; the schema shows the default
    prefills: Annotated[list[str], Field(max_length=512)] | None = None,
    samples: Annotated[int, Field(ge=1, le=64)] = 1,
    temperature: Temperature = 1.0,
    max_new_tokens: MaxNewTokens = 48,
    beside: bool = True,
) -> ToolResult:
    """Apply an intervention as it would be handed in, and read the replies beside those without the edits.

    Edits are applied in order at every token of their phases (Turner et al. 2023; Arditi et al. 2024 for ablation); a
    system prompt is simply the first message. Replies without the edits are drawn with the same seeds, so that what
    differs is the edits' doing. This tool judges nothing: whether a direction is better than a random one is what
    steer measures, and whether other abilities suffer has to be asked here with prompts of their own.

    Args:
        conversations: each a list of messages, a user message last.
        edits: edits of the activations; none to try a system prompt alone.
        prefills: how the reply to each conversation begins; as many as conversations, '' for none.
        samples: replies to each.
        temperature: 0 is greedy.
        max_new_tokens: longest reply.
        beside: whether the replies without the edits are drawn, too.

    Returns:
        For each conversation the replies under the edits and those without.

    Example:
        {"conversations": [[{"role": "user", "content": "Which lamp should I buy?"}]],
        "edits": [{"vector": "vec-3f9a1c02", "layer": 1, "scale": -4.0}], "samples": 4}
    """
    for messages in conversations:
        check_conversation(messages)
    if prefills is not None and len(prefills) != len(conversations):
        raise ToolError(f"{len(prefills)} prefills for {len(conversations)} conversations; give one each, '' for none")
    check_samples(len(conversations) * 2, samples, temperature=temperature, max_new_tokens=max_new_tokens)
    applied = interventions_of(target, edits)
    begins = prefills or [""] * len(conversations)
    prompts = [
        target.render(messages, prefill=begin or None) for messages, begin in zip(conversations, begins, strict=True)
    ]
    rows = [prompt for prompt in prompts for _ in range(samples)]
    seeds = [sample_seed(seed, "intervene", row, sample) for row in range(len(prompts)) for sample in range(samples)]
    cost, replies = Cost(), {}
    for name, each in (("edited", applied), ("plain", ())):
        if name == "plain" and not (applied and beside):
            continue
        found = target.generate(
            rows,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=seeds,
            interventions=[each] * len(rows) if each else (),
        )
        cost += Cost(sum(one.prompt_tokens for one in found), sum(len(one.tokens) for one in found))
        replies[name] = [[one.text for one in found[at : at + samples]] for at in range(0, len(found), samples)]
    lines = []
    for number in range(len(prompts)):
        for name, texts in replies.items():
            shown = "; ".join(target.quote(text, limit=300) for text in texts[number][:3])
            lines.append(f"{number + 1} {name if applied else 'reply'}: {shown}")
    data = {"replies": replies["edited"], **({"without_edits": replies["plain"]} if "plain" in replies else {})}
    return ToolResult(text=fit_lines(lines), data=data, cost=cost)
