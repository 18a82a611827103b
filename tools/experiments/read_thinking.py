"""The chain of thought of a reply, and whether the answer depends on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import (
    MaxNewTokens,
    Message,
    Model,
    Samples,
    Temperature,
    TopP,
    Words,
    check_conversation,
    check_samples,
    choose_model,
    sample_seed,
)
from marple.tools.contract import ToolResult, tool
from marple.tools.replies import Sampling, cost_of, sample_replies
from marple.tools.statistics import newcombe_interval
from marple.tools.target.target import Completion, Target
from marple.tools.target.text import fit_lines
from marple.tools.thoughts.outcomes import OutcomeRule, compare_outcomes, share_interval, shares
from marple.tools.thoughts.splitting import (
    KNOWN_MARKERS,
    Markers,
    Thought,
    raw_text,
    render_thinking,
    split_thought,
    thinking_switch,
    tokens_behind,
    tokens_of_prefix,
)

__all__ = ["read_thinking"]

_SHOWN = 4


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target(favour={"lamp": 6.0})
    asked: list[Message] = [{"role": "user", "content": "tell me"}]
    plain = read_thinking(target, seed=1, messages=asked, samples=4, max_new_tokens=6, markers=["<think>", "</think>"])
    assert plain.data["thoughts"] == 0, "a thought was read where there is none"
    marked = read_thinking(
        target, seed=1, messages=asked, samples=8, max_new_tokens=8, markers=["lamp", "lamp"], outcomes=["lamp"]
    )
    assert marked.data["thoughts"] > 0, "the markers given were not used"


@dataclass(frozen=True)
class _Sample:
    reply: Completion
    text: str
    thought: Thought | None


@tool(rung=1, parallel=True, family="reasoning", self_test=_self_test)
def read_thinking(
    target: Target,
    *,
    seed: int,
    messages: Annotated[list[Message], Field(min_length=1)],
    samples: Samples = 8,
    enable_thinking: bool | None = None,
    markers: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None,
    outcomes: Words | None = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 256,
    on: Model = "target",
) -> ToolResult:
    """Split the chain of thought from the answer, and test whether the answer depends on it.

    Each answer is drawn again behind the same thought and behind none. Where answers agree as often without the thought
    as with it, the thought does not explain them (Turpin et al. 2023; Lanham et al. 2023). Where they do not, they need
    a thought, though perhaps not what it says: without one the model may answer in another form altogether.

    Args:
        messages: the conversation, a user message last.
        samples: replies, and again as many answers with and without the thought.
        enable_thinking: the chat template's switch; null leaves it alone.
        markers: opening and closing marker of a thought, where the usual ones do not fit.
        outcomes: words that answers are told apart by; without them two answers agree when their texts do.
        temperature: 0 is greedy, with one sample.
        top_p: mass of the nucleus; 1 is all tokens.
        max_new_tokens: longest thought and answer together.
        on: which model.

    Example:
        {"messages": [{"role": "user", "content": "What is 3 plus 4?"}], "samples": 8, "outcomes": ["7", "8"]}
    """
    check_conversation(messages)
    check_samples(3, samples, temperature=temperature, max_new_tokens=max_new_tokens)
    model, rule = choose_model(target, on), OutcomeRule(tuple(outcomes or ()))
    pairs = (_given(markers),) if markers else KNOWN_MARKERS
    prompt = render_thinking(model, messages, thinking=enable_thinking)
    opened = raw_text(model, prompt[-32:])
    sampling = Sampling(samples, temperature, max_new_tokens, top_p)
    replies = sample_replies(model, [prompt], sampling, seed=seed, label="thinking")[0]
    read = [_read(model, reply, pairs, opened) for reply in replies]
    data: dict[str, Any] = {"on": on, "samples": [_record(one, rule) for one in read]}
    thoughtful = [one for one in read if one.thought is not None and one.thought.closed and one.thought.answer]
    data["thoughts"] = sum(one.thought is not None for one in read)
    controls, cost = dict[str, Any](), cost_of([replies])
    if thoughtful:
        without = _without_thought(model, messages, prompt, thoughtful[0], opened)
        one_each = Sampling(1, temperature, max_new_tokens, top_p)
        kept = [[*prompt, *tokens_of_prefix(model, one.reply, one.text[: _end(one)])] for one in thoughtful]
        behind = sample_replies(model, kept, one_each, seed=seed, label="same thought")
        empty = sample_replies(model, [without] * len(kept), one_each, seed=seed, label="no thought")
        answers = [_answers(model, group, pairs) for group in (behind, empty)]
        controls = _faithfulness([_answer(one) for one in thoughtful], *answers, rule=rule, seed=seed)
        data["answers_again"] = {"same_thought": answers[0], "no_thought": answers[1]}
        cost = cost + cost_of(behind, empty)
    text = fit_lines(_lines(model, read, pairs, controls, thoughtful=len(thoughtful)))
    return ToolResult(text=text, data=data, controls=controls, cost=cost)


def _given(markers: Sequence[str]) -> Markers:
    if not all(marker.strip() for marker in markers):
        raise ToolError('markers: each must have visible text; for example "markers": ["<think>", "</think>"]')
    return Markers(*markers)


def _read(model: Target, reply: Completion, pairs: Sequence[Markers], opened: str) -> _Sample:
    text = raw_text(model, reply.tokens)
    return _Sample(reply, text, split_thought(text, markers=pairs, opened=opened))


def _end(one: _Sample) -> int:
    return one.thought.end if one.thought else 0


def _answer(one: _Sample) -> str:
    return one.thought.answer if one.thought else one.text


def _without_thought(
    model: Target, messages: Sequence[Message], prompt: Sequence[int], one: _Sample, opened: str
) -> list[int]:
    """The prompt with thinking switched off where the template can, else with an empty thought behind it."""
    assert one.thought is not None
    markers = one.thought.markers
    if markers.opening.startswith("<") and thinking_switch(model):
        return render_thinking(model, messages, thinking=False)
    text = markers.closing if opened.rstrip().endswith(markers.opening) else markers.empty
    return [*prompt, *tokens_behind(model, text)]


def _answers(model: Target, group: Sequence[Sequence[Completion]], pairs: Sequence[Markers]) -> list[str]:
    read = [_read(model, replies[0], pairs, "") for replies in group]
    return [_answer(one).strip() for one in read]


def _faithfulness(
    first: Sequence[str], again: Sequence[str], without: Sequence[str], *, rule: OutcomeRule, seed: int
) -> dict[str, Any]:
    said, kept, left = ([rule.of(text) for text in group] for group in (first, again, without))
    n = len(said)
    same = sum(a == b for a, b in zip(said, kept, strict=True))
    other = sum(a == b for a, b in zip(said, left, strict=True))
    change = compare_outcomes(kept, left, seed=sample_seed(seed, "shuffles"))
    null = compare_outcomes(said, kept, seed=sample_seed(seed, "null shuffles"))
    low, high = newcombe_interval(same, other, first_n=n, second_n=n)
    return {
        "n": n,
        "agree_with_same_thought": {"count": same, "share": same / n, "ci": list(share_interval(same, n))},
        "agree_without_thought": {"count": other, "share": other / n, "ci": list(share_interval(other, n))},
        "difference": {"value": (same - other) / n, "ci": [low, high]},
        "with_against_without": change.to_dict(),
        "with_against_with": null.to_dict(),
        "outcomes": {"first": shares(said), "same_thought": shares(kept), "no_thought": shares(left)},
    }


def _record(one: _Sample, rule: OutcomeRule) -> dict[str, Any]:
    thought = one.thought
    return {
        "reply": one.text,
        "thought": thought.thought if thought else None,
        "answer": _answer(one),
        "closed": thought.closed if thought else None,
        "outcome": rule.of(_answer(one)),
        "finish": one.reply.finish,
        "tokens": len(one.reply.tokens),
    }


def _lines(
    model: Target, read: Sequence[_Sample], pairs: Sequence[Markers], controls: dict[str, Any], *, thoughtful: int
) -> Iterator[str]:
    with_thought = [one for one in read if one.thought is not None]
    unclosed = sum(one.thought is not None and not one.thought.closed for one in read)
    if not with_thought:
        tried = ", ".join(f"{model.quote(pair.opening)} ... {model.quote(pair.closing)}" for pair in pairs)
        yield f"no chain of thought in {len(read)} replies (markers looked for: {tried})"
        switch = thinking_switch(model)
        if switch:
            yield f"the chat template has a switch {model.quote(switch)}: set enable_thinking"
    else:
        yield f"{len(with_thought)} of {len(read)} replies have a chain of thought, {unclosed} of them without an end"
        yield from _verdict(model, controls, thoughtful)
    for number, one in enumerate(read[:_SHOWN], start=1):
        if one.thought is not None:
            yield f"reply {number} thought: {model.quote(one.thought.thought, limit=400)}"
        yield f"reply {number} answer: {model.quote(_answer(one), limit=200)}"
    if len(read) > _SHOWN:
        yield f"{len(read) - _SHOWN} more replies in the data"


def _verdict(model: Target, controls: dict[str, Any], n: int) -> Iterator[str]:
    if not controls:
        yield "no thought is followed by an answer: raise max_new_tokens"
        return
    same, other, gap = (controls[k] for k in ("agree_with_same_thought", "agree_without_thought", "difference"))
    yield (
        f"answers drawn again that agree with the first ones, of {n}: {same['count']} behind the same thought, "
        f"{other['count']} without a thought; difference {gap['value']:+.2f}, "
        f"95 % interval [{gap['ci'][0]:+.2f}, {gap['ci'][1]:+.2f}]"
    )
    change, null = controls["with_against_without"], controls["with_against_with"]
    yield (
        f"distance of the answers with and without the thought {change['distance']:.2f} (p {change['p']:.3g}); "
        f"control, with the thought against with it again: {null['distance']:.2f} (p {null['p']:.3g})"
    )
    for name, label in (("same_thought", "with the thought"), ("no_thought", "without it")):
        top = list(controls["outcomes"][name].items())[:4]
        yield f"  {label}: " + ", ".join(f"{model.quote(text, limit=60)} {share:.0%}" for text, share in top)
    # One side of the interval errs in 2.5 % of cases and so may the test, which is 5 % for the verdict.
    if gap["ci"][0] > 0 or change["p"] <= 0.025:
        yield (
            "verdict: the answers depend on there being the thought; whether on what it says, an edited thought tells "
            "(resample with edit, or prefill)"
        )
    elif same["share"] < 0.5:
        yield "verdict: undecided, answers differ even behind the same thought: name outcomes or lower the temperature"
    else:
        yield f"verdict: no evidence at n {n} that the answers depend on the thought"
