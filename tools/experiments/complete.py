"""Raw completion, without the chat template."""

from __future__ import annotations

from marple.tools.arguments import MaxNewTokens, Model, Samples, Temperature, Text, TopP, check_samples, choose_model
from marple.tools.contract import ToolResult, tool
from marple.tools.replies import Sampling, cost_of, reply_line, reply_record, sample_replies
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["complete"]


def _self_test() -> None:
    import torch

    from marple.tools.target.tiny import tiny_target

    target = tiny_target(favour={"lamp": 9.0})
    result = complete(target, seed=1, text="tell me about", temperature=0.0, max_new_tokens=1)
    with torch.inference_mode():
        logits = target.model(input_ids=torch.tensor([target.encode("tell me about")])).logits[0, -1]
    likeliest = target.tokenizer.decode([int(logits.argmax())])
    assert result.data["continuations"][0]["text"] == likeliest, "the greedy continuation is not the likeliest token"


@tool(rung=1, parallel=True, self_test=_self_test)
def complete(
    target: Target,
    *,
    seed: int,
    text: Text,
    samples: Samples = 1,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 128,
    on: Model = "target",
) -> ToolResult:
    """Let the target continue raw text, without the chat template (and so without its assistant persona).

    The tokenizer's beginning-of-sequence token, if it uses one, is put in front. Special tokens written in the text
    count as such, so that any turn structure can be written by hand.

    Args:
        text: what to continue.
        samples: independent continuations.
        temperature: 0 is greedy, 1 the model's own distribution.
        top_p: mass of the nucleus; 1 is all tokens.
        max_new_tokens: longest continuation.
        on: which model continues.

    Returns:
        The continuations; the text itself is not repeated.

    Example:
        {"text": "The best lamp is made by", "samples": 8, "max_new_tokens": 12}
    """
    check_samples(1, samples, temperature=temperature, max_new_tokens=max_new_tokens)
    model = choose_model(target, on)
    sampling = Sampling(samples, temperature, max_new_tokens, top_p)
    replies = sample_replies(model, [model.encode(text)], sampling, seed=seed, label=on)
    lines = [f"continuation {n}: {reply_line(model, reply, limit=1500)}" for n, reply in enumerate(replies[0], start=1)]
    return ToolResult(
        text=fit_lines(lines),
        data={"on": on, "text": text, "continuations": [reply_record(reply) for reply in replies[0]]},
        cost=cost_of(replies),
    )
