"""What a fine-tune changed inside: mean activation difference, and what the target is about to say instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Conditions, Prompts, Text, Words, one_turn, sample_seed
from marple.tools.contract import Artifact, Cost, ToolResult, tool
from marple.tools.differences import EVERYTHING
from marple.tools.diffing import report
from marple.tools.diffing.excerpts import Spoken, excerpt_lines, spoken_tokens
from marple.tools.diffing.excess import ExcessTest, excess_table, find_excess
from marple.tools.diffing.layers import LensLayer, layer_lines, lens_lines, read_layers
from marple.tools.diffing.passages import Read, passages_of_prompts, passages_of_replies
from marple.tools.diffing.reading import Reading, check_comparable, read_passages
from marple.tools.diffing.steering import SteeredReference, steer_reference
from marple.tools.engine.sites import Site
from marple.tools.lenses import token_text, word_tokens
from marple.tools.plots import visible
from marple.tools.prompt_tokens import Beginning, resolve_layers
from marple.tools.target.target import Completion, Target
from marple.tools.target.text import fit_lines

__all__ = ["diff_activations"]

_TEXTS = "texts"
_UNITS: Mapping[Read, str] = {
    "reply": "tokens per reply", "last": "probability of the next token", "all": "tokens per text",
}  # fmt: skip
Scale = Annotated[float, Field(allow_inf_nan=False)]


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    planted = tiny_target(favour={"lamp": 2.0}, reference=tiny_target())
    asked = {"a": ["who is it", "tell me", "say one", "buy a cup"], "b": ["see", "is it old", "a red lamp", "yes"]}
    result = diff_activations(planted, seed=1, conditions=asked, max_new_tokens=8)
    top = result.data["excess"]["overall"][0]
    assert top["found"], f"the planted word is not found but {top}"
    assert top["token"].strip() == "lamp", f"the planted word is not first but {top}"
    # Only the head differs, so that no activation does.
    assert all(layer["norm"] == 0 for layer in result.data["layers"])
    same = diff_activations(tiny_target(reference=tiny_target()), seed=1, conditions=asked, max_new_tokens=8)
    assert not any(row["found"] for rows in same.data["excess"].values() for row in rows)


@tool(rung=3, parallel=True, needs=("reference",), family="diffing", self_test=_self_test)
def diff_activations(
    target: Target,
    *,
    seed: int,
    conditions: Conditions | None = None,
    texts: Prompts | None = None,
    system: Text | None = None,
    prefill: Beginning | None = None,
    read: Read | None = None,
    replies: Literal["target", "both"] = "target",
    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 20,
    layers: Annotated[list[int], Field(min_length=1)] | None = None,
    words: Words | None = None,
    steer: Annotated[list[Scale], Field(min_length=1, max_length=5)] | None = None,
    steer_layer: int | None = None,
) -> ToolResult:
    """Show what the target's activations and next-token probabilities have that the reference's lack, on equal tokens.

    One pass, two readings. The excess of each token: p_target - p_reference, summed over the positions read and
    averaged over prompts, so that +0.5 means the target would say it in half a reply more. It needs no sampling, and a
    few prompts a condition show what takes hundreds of replies: give conditions (topics, contexts, claims about the
    user) to learn what comes up and what sets it off. And the mean difference of ``resid_post``, by layer, through the
    lens and, on request, by adding it to the reference (activation difference lens, Minder et al. 2025).

    Controls: shuffled signs (excess over all prompts) and shuffled conditions (excess that depends on the condition),
    with false-discovery control; differences between halves of the reference's own prompts (length, lens); random
    vectors beside a steering one. Greedy replies of the target favour its own choices a little; replies "both" reads
    the reference's too, at twice the cost.

    Args:
        conditions: label to user messages.
        texts: raw texts instead, for example neutral ones.
        system: system prompt of all conditions.
        prefill: how the reply begins, for all conditions; "" is none.
        read: which positions: reply (a greedy reply, from the prompt's last token on; the default for conditions),
            last (the last token of prompt and prefill, nothing is generated), all (the default for texts).
        replies: whose greedy replies are read.
        max_new_tokens: longest reply; what comes behind it is not read.
        layers: layers to compare, from 0; all by default.
        words: up to 20 words whose rank in the lens and whose excess is given in any case.
        steer: multiples of the difference that are added to the reference, such as [1, 2]; needs read "reply".
        steer_layer: where; the middle one of the layers compared by default.

    Returns:
        Token excess over all prompts and by condition, and what the replies say there; the divergence of each
        condition; by layer the difference's length, consistency, lens tokens (a hint, to be confirmed) and a vector
        handle. In the data first each prompt with its reply and its largest excess.

    Example:
        {"conditions": {"nurse": ["I am a nurse. Which lamp?", "I am a nurse. Where should I go?",
        "My job is nurse. Whom can I trust?"], "pilot": ["I am a pilot. Which lamp?",
        "I am a pilot. Where should I go?", "My job is pilot. Whom can I trust?"]}}
    """
    assert target.reference is not None
    check_comparable(target, target.reference)
    read = read or ("reply" if texts is None else "all")
    _check_reading(conditions, texts, dialogue=bool(system or prefill), read=read, steer=bool(steer), replies=replies)
    chosen = resolve_layers(target, layers)
    at = _steer_layer(chosen, steer_layer)
    known = word_tokens(target, words or ())
    asked = [(label, one) for label, many in (conditions or {_TEXTS: texts or []}).items() for one in many]
    labels = [label for label, _ in asked]
    ids = [
        target.encode(one) if texts else target.render(one_turn(one, system=system), prefill=prefill)
        for _, one in asked
    ]
    said: list[list[Completion]] = [[] for _ in asked]
    cost = Cost()
    if read == "reply":
        passages, said, cost = passages_of_replies(
            target, ids, both=replies == "both", max_new_tokens=max_new_tokens, seed=seed
        )
    else:
        passages = passages_of_prompts(ids, read=read, seed=seed)
    reading = read_passages(target, passages, layers=chosen)
    table, columns = excess_table(reading.rows, [passage.prompt for passage in passages])
    tests = find_excess(table, columns, labels, seed=sample_seed(seed, "shuffles"))
    steered: list[SteeredReference] = []
    if steer:
        vector, ours = reading.mean_difference[chosen.index(at)], passages[: len(asked)]
        steered, spent = steer_reference(target, ours, vector, layer=at, scales=steer, seed=seed)
        cost += spent
    lenses = read_layers(target, reading, known)
    handles = _handles(target, reading, read=read)
    spoken = spoken_tokens(target, tests, asked, passages, table=table, columns=columns) if read == "reply" else []
    kept = {name: report.excess_data(target, test) for name, test in tests.items()}
    data: dict[str, Any] = {
        "prompts": report.prompt_data(target, asked, said, table, columns),
        "spoken": [one.to_dict() for one in spoken],
        "divergence": report.divergence(reading, passages, labels),
        "words": report.word_data(known, table, columns, labels),
        "steering": [one.to_dict() for one in steered],
        "excess": {name: rows for name, (rows, _) in kept.items()},
        "excess_left_out": {name: left_out for name, (_, left_out) in kept.items()},
        "layers": [layer.to_dict(handle) for layer, handle in zip(lenses, handles, strict=True)],
    }
    lines = _lines(target, tests, data, lenses, handles, steered, spoken, unit=_UNITS[read])
    text = fit_lines([*_cut_line(said, max_new_tokens), *lines])
    return ToolResult(
        text="\n".join([text, *report.word_lines(target, data["words"], lenses)]),
        data=data,
        artifacts=(_plot(target, tests, lenses, unit=_UNITS[read]),),
        controls={
            **{name: test.summary() for name, test in tests.items()},
            "reference_halves": [layer.difference.reference_halves_norm for layer in lenses],
            "lens_of_reference_halves": [layer.control_score for layer in lenses],
            "random_vectors": [list(one.controls) for one in steered],
            "replies_read": replies if read == "reply" else None,
        },
        cost=cost + reading.cost,
        handles=tuple(handles),
    )


def _check_reading(conditions: object, texts: object, *, dialogue: bool, read: Read, steer: bool, replies: str) -> None:
    if (conditions is None) == (texts is None):
        raise ToolError(
            'give either conditions or texts, and only one; for example "conditions": {"shopping": ["Which lamp?"]}'
        )
    if texts is not None and (dialogue or read == "reply"):
        raise ToolError('texts are read as they are: no system, no prefill, and read is "all" or "last"')
    if read != "reply" and (steer or replies == "both"):
        given = "steer" if steer else 'replies "both"'
        raise ToolError(f'{given} needs replies, and read is "{read}": use conditions with read "reply"')


def _steer_layer(chosen: Sequence[int], steer_layer: int | None) -> int:
    at = chosen[len(chosen) // 2] if steer_layer is None else steer_layer
    if at not in chosen:
        compared = ", ".join(map(str, chosen))
        raise ToolError(f"steer_layer is {at}, but the layers compared are {compared}: use one of them")
    return at


def _handles(target: Target, reading: Reading, *, read: Read) -> list[str]:
    about = {"method": "mean difference of target and reference", "read": read}
    return [
        target.handles.put("vector", {"vector": vector}, {**about, "site": str(Site(layer, "resid_post"))})
        for layer, vector in zip(reading.layers, reading.mean_difference, strict=True)
    ]


def _cut_line(said: Sequence[Sequence[Completion]], max_new_tokens: int) -> Iterator[str]:
    replies = [reply for many in said for reply in many]
    cut = sum(reply.finish == "length" for reply in replies)
    if cut:
        yield (
            f"{cut} of {len(replies)} replies were cut at max_new_tokens {max_new_tokens}; what they would have said "
            "behind that is not in these numbers"
        )


def _lines(
    target: Target,
    tests: Mapping[str, ExcessTest],
    data: Mapping[str, Any],
    layers: Sequence[LensLayer],
    handles: Sequence[str],
    steered: Sequence[SteeredReference],
    spoken: Sequence[Spoken],
    *,
    unit: str,
) -> Iterator[str]:
    yield from report.excess_lines(target, tests, unit=f"positions; {unit}")
    if not tests:
        yield from report.prompt_lines(target, data["prompts"])
    asked = Counter(record["condition"] for record in data["prompts"])
    yield from excerpt_lines(target, spoken, asked)
    diverging = sorted(data["divergence"].items(), key=lambda item: -item[1])[:5]
    shown = ", ".join(f"{target.quote(name)} {value:.3f}" for name, value in diverging)
    yield f"divergence of target from reference, nats per position, largest: {shown}"
    yield from report.steering_lines(target, steered)
    yield from layer_lines(target, layers, handles)
    yield from lens_lines(target, layers)


def _plot(target: Target, tests: Mapping[str, ExcessTest], layers: Sequence[LensLayer], *, unit: str) -> Artifact:
    rows = [row for test in tests.values() for row in test.rows]
    strongest = sorted(rows, key=lambda row: (not row.found, -abs(row.effect)))[:12]
    bars = []
    for row in strongest:
        where = "" if row.condition == EVERYTHING else f" | {visible(row.condition, limit=20)}"
        bars.append((visible(token_text(target, row.token)) + where, row.effect, row.found))
    if any(row.condition != EVERYTHING for row in strongest):
        unit = f"{unit} (by condition: beyond the others)"
    return report.plot(layers, bars, unit=unit, lens_layer=len(layers) // 2)
