"""Resample a reply from each of its sentences on, or after an edit, and see what its outcome hangs on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from marple.errors import ToolError
from marple.tools.arguments import (
    MaxNewTokens,
    Message,
    Text,
    TopP,
    Words,
    check_conversation,
    check_samples,
    sample_seed,
)
from marple.tools.contract import ToolResult, tool
from marple.tools.replies import Sampling, cost_of, sample_replies
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines
from marple.tools.thoughts.outcomes import OutcomeRule, compare_outcomes, shares
from marple.tools.thoughts.resampling import (
    check_sentences,
    halves_apart,
    plot_arms,
    plot_sentences,
    sentence_importances,
    show_shares,
)
from marple.tools.thoughts.splitting import raw_text, sentences, tokens_behind, tokens_of_prefix

__all__ = ["Edit", "resample"]


@with_config(ConfigDict(extra="forbid", strict=True))
class Edit(TypedDict):
    """One replacement."""

    where: Literal["prompt", "reply"]
    old: str
    new: str


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target(favour={"lamp": 3.0})
    asked: list[Message] = [{"role": "user", "content": "tell me"}]
    result = resample(
        target, seed=1, messages=asked, reply="say yes. lamp.", outcomes=["yes"], samples=6, max_new_tokens=4
    )
    kept = [row["shares"].get("yes", 0.0) for row in result.data["boundaries"]]
    assert kept[1:] == [1.0, 1.0], f"the outcome that the kept sentence says has shares {kept}"


@tool(rung=1, parallel=True, family="reasoning", self_test=_self_test)
def resample(
    target: Target,
    *,
    seed: int,
    messages: Annotated[list[Message], Field(min_length=1)],
    reply: Text | None = None,
    edit: Edit | None = None,
    outcomes: Words | None = None,
    answer_after: str = "",
    samples: Annotated[int, Field(ge=4, le=1000)] = 16,
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 128,
) -> ToolResult:
    """Resample a reply (thought included) from every sentence on, or from an edit on, and compare where it ends.

    A sentence's importance is how far the outcomes move between continuing before it and behind it; its counterfactual
    importance counts only continuations that say something else in its place (Bogdan et al. 2025). With an edit, the
    edited prompt or reply is continued beside the unedited one.

    Args:
        messages: the conversation, a user message last.
        reply: the reply to resample; without it one is sampled. With an edit: how the reply begins, if it has begun.
        edit: replace text in the last user message, or in the reply, which then goes on freely.
        outcomes: words that replies are told apart by; without them the final text itself.
        answer_after: only what follows this text counts as the outcome, such as "answer:".
        samples: continuations at each place.
        temperature: 1 is the model's own distribution.
        top_p: mass of the nucleus; 1 is all tokens.
        max_new_tokens: longest continuation.

    Example:
        {"messages": [{"role": "user", "content": "Which lamp is good?"}], "outcomes": ["red", "blue"], "samples": 8}
    """
    check_conversation(messages)
    sampling = Sampling(samples, temperature, max_new_tokens, top_p)
    rule = OutcomeRule(tuple(outcomes or ()), answer_after)
    if edit is not None:
        return _edited(target, messages, reply, edit, rule, sampling, seed)
    return _by_sentence(target, messages, reply, rule, sampling, seed)


def _by_sentence(
    target: Target, messages: Sequence[Message], reply: str | None, rule: OutcomeRule, sampling: Sampling, seed: int
) -> ToolResult:
    prompt = target.render(messages)
    cost = cost_of()
    if reply is None:
        one = Sampling(1, sampling.temperature, sampling.max_new_tokens, sampling.top_p)
        drawn = sample_replies(target, [prompt], one, seed=seed, label="whole")
        tokens, cost = list(drawn[0][0].tokens), cost_of(drawn)
    else:
        tokens = tokens_behind(target, reply)
    text = raw_text(target, tokens)
    parts = sentences(text)
    check_sentences(parts, reply)
    check_samples(len(parts) + 1, sampling.samples, temperature=1.0, max_new_tokens=sampling.max_new_tokens)
    begun = ["".join(parts[:at]) for at in range(len(parts) + 1)]
    prompts = [[*prompt, *tokens_of_prefix(target, tokens, prefix)] for prefix in begun]
    drawn = sample_replies(target, prompts, sampling, seed=seed, label="continued")
    texts = [[raw_text(target, one.tokens) for one in group] for group in drawn]
    ends = [[rule.of(start + more) for more in group] for start, group in zip(begun, texts, strict=True)]
    rows = sentence_importances(parts, texts, ends, seed=seed)
    boundaries = [
        {"sentences_kept": at, "shares": shares(group), "outcomes": group, "continuations": more}
        for at, (group, more) in enumerate(zip(ends, texts, strict=True))
    ]
    halves = [halves_apart(group, sample_seed(seed, "halves", at)) for at, group in enumerate(ends)]
    controls = {
        "first_half_against_second": halves,
        "mean_distance_by_chance": sum(half["distance"] for half in halves) / len(halves),
    }
    return ToolResult(
        text=fit_lines(_sentence_lines(target, rows, ends, controls)),
        data={"reply": text, "sentences": rows, "boundaries": boundaries},
        controls=controls,
        cost=cost + cost_of(drawn),
        artifacts=(plot_sentences(parts, ends),),
    )


def _sentence_lines(
    target: Target, rows: Sequence[Mapping[str, Any]], ends: Sequence[Sequence[str]], controls: Mapping[str, Any]
) -> Iterator[str]:
    decisive = [row for row in rows if row["q"] <= 0.05]
    yield (
        f"{len(rows)} sentences, {len(ends[0])} continuations at each of {len(ends)} places; {len(decisive)} sentences "
        f"move the outcome (q <= 0.05); by chance two halves of the same place differ by "
        f"{controls['mean_distance_by_chance']:.2f}"
    )
    yield f"before the first sentence: {show_shares(target, ends[0])}"
    for number, row in enumerate(rows, start=1):
        change, other = row["importance"], row["counterfactual"]
        yield (
            f"[{number}] {target.quote(row['sentence'], limit=120)}{' *' if row['q'] <= 0.05 else ''}: importance "
            f"{change['distance']:.2f} (q {row['q']:.2g}), counterfactual "
            + (f"{other['distance']:.2f} (p {other['p']:.2g})" if other else "unknown")
            + f", {row['said_otherwise']} of {len(ends[number - 1])} say something else; then: "
            + show_shares(target, ends[number])
        )


def _edited(
    target: Target,
    messages: Sequence[Message],
    reply: str | None,
    edit: Edit,
    rule: OutcomeRule,
    sampling: Sampling,
    seed: int,
) -> ToolResult:
    check_samples(2, sampling.samples, temperature=1.0, max_new_tokens=sampling.max_new_tokens)
    changed, start = list(messages), reply or ""
    new_start = start
    if edit["where"] == "prompt":
        last = messages[-1]
        changed[-1] = {"role": last["role"], "content": _replace(last["content"], edit, "the last user message")}
    else:
        new_start = _replace(start, edit, "the reply")
    prompts = [
        [*target.render(asked), *(tokens_behind(target, begun) if begun else ())]
        for asked, begun in ((messages, start), (changed, new_start))
    ]
    drawn = [
        sample_replies(target, [prompt], sampling, seed=seed, label=label)[0]
        for prompt, label in zip(prompts, ("unedited", "edited"), strict=True)
    ]
    texts = [[raw_text(target, one.tokens) for one in group] for group in drawn]
    # What the edit itself says is no outcome of it, so only the continuations count.
    ends = [[rule.of(more) for more in group] for group in texts]
    change = compare_outcomes(ends[0], ends[1], seed=sample_seed(seed, "shuffles")).to_dict()
    controls = {
        "unedited_halves": halves_apart(ends[0], sample_seed(seed, "halves", 0)),
        "edited_halves": halves_apart(ends[1], sample_seed(seed, "halves", 1)),
    }
    arms = ("unedited", "edited")
    return ToolResult(
        text=fit_lines(_edit_lines(target, edit, ends, texts, change, controls)),
        data={
            "change": change,
            "arms": {
                name: {"shares": shares(group), "outcomes": group, "continuations": more}
                for name, group, more in zip(arms, ends, texts, strict=True)
            },
        },
        controls=controls,
        cost=cost_of(drawn),
        artifacts=(plot_arms(ends),),
    )


def _replace(text: str, edit: Edit, where: str) -> str:
    if not edit["old"] or edit["old"] not in text:
        example = text.split()[0] if text.split() else "the beginning of a reply, given as reply"
        raise ToolError(
            f"edit: {edit['old']!r} does not occur in {where}; give text that does, for example {example!r}"
        )
    if edit["old"] == edit["new"]:
        raise ToolError("edit: old and new are the same; the control without an edit is always run")
    return text.replace(edit["old"], edit["new"])


def _edit_lines(
    target: Target,
    edit: Edit,
    ends: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]],
    change: Mapping[str, float],
    controls: Mapping[str, Mapping[str, float]],
) -> Iterator[str]:
    n = len(ends[0])
    old, new = (target.quote(edit[side], limit=60) for side in ("old", "new"))
    moves = "moves" if change["p"] <= 0.05 else "does not detectably move"
    yield (
        f"{old} -> {new} in the {edit['where']} {moves} the outcome: distance "
        f"{change['distance']:.2f}, p {change['p']:.3g}, n {n} and {n} (chance reaches {change['chance_95']:.2f})"
    )
    halves = (controls[name] for name in ("unedited_halves", "edited_halves"))
    yield "same-edit controls, first half against second: " + ", ".join(
        f"{name} {half['distance']:.2f} (p {half['p']:.2g})"
        for name, half in zip(("unedited", "edited"), halves, strict=True)
    )
    for name, group, more in zip(("unedited", "edited"), ends, texts, strict=True):
        yield f"{name}: {show_shares(target, group)}"
        yield from (f"    {target.quote(one, limit=160)}" for one in more[:3])
