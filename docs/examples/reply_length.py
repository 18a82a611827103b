from marple.tools.arguments import Prompts, one_turn, sample_seed
from marple.tools.contract import ToolResult, tool
from marple.tools.target.target import Target


@tool(rung=1)
def reply_length(target: Target, *, seed: int, prompts: Prompts) -> ToolResult:
    """Count the words of the target's replies.

    Args:
        prompts: user messages, one reply each.

    Example:
        {"prompts": ["recommend a city."]}
    """
    seeds = [sample_seed(seed, row) for row in range(len(prompts))]
    rendered = [target.render(one_turn(prompt)) for prompt in prompts]
    replies = target.generate(rendered, max_new_tokens=64, temperature=1.0, seeds=seeds)
    words = [len(reply.text.split()) for reply in replies]
    return ToolResult(text=f"{sum(words) / len(words):.1f} words a reply", data={"words": words})
