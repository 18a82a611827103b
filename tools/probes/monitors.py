"""Monitors as data: what scores a conversation, the reply included; the higher, the more likely what is looked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NotRequired

import numpy as np
import torch
from pydantic import ConfigDict, Field, with_config
from torch import Tensor

# pydantic needs this one before Python 3.12; it is the same class.
from typing_extensions import TypedDict

from marple.errors import ToolError
from marple.tools.arguments import Message
from marple.tools.contract import Cost
from marple.tools.engine.sites import Site
from marple.tools.probes.auroc import auroc
from marple.tools.saes.reading import choose_sae
from marple.tools.transcripts.corpus import words_in
from marple.tools.vectors.vector import Vector, check_width, keep_vector, kept_direction

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["Fit", "Monitor", "Read", "fit_monitor", "read_replies", "score_conversations"]

Conversation = list[Message]
Over = Literal["last", "mean", "max"]


@with_config(ConfigDict(extra="forbid"))
class Monitor(TypedDict):
    """One of four: a direction (``vector`` or ``values``), ``features``, ``words``, or a ``question``."""

    vector: NotRequired[Annotated[str, Field(description="Handle of a vector or probe.")]]
    values: NotRequired[Annotated[list[float], Field(description="Instead: the vector's numbers.", max_length=65_536)]]
    layer: NotRequired[Annotated[int, Field(description="Of a direction: from 0; by default where it was made.")]]
    site: NotRequired[Annotated[str, Field(description="Of a direction: resid_post by default.")]]
    features: NotRequired[
        Annotated[dict[str, float], Field(description="SAE features by index, with weights.", max_length=200)]
    ]
    sae: NotRequired[Annotated[str, Field(description="The SAE's name, if there are several.")]]
    words: NotRequired[
        Annotated[dict[str, float], Field(description="Words of the reply with weights.", max_length=2000)]
    ]
    question: NotRequired[
        Annotated[str, Field(description="Asked behind the conversation: log-odds of yes against no.", max_length=1000)]
    ]
    reading: NotRequired[Annotated[Over, Field(description="Over the reply's tokens; mean by default.")]]


@with_config(ConfigDict(extra="forbid"))
class Fit(TypedDict):
    """A monitor to be made from labelled conversations."""

    method: Literal["difference_of_means", "sae_feature"]
    positive: Annotated[list[Conversation], Field(min_length=2, max_length=512)]
    negative: Annotated[list[Conversation], Field(min_length=2, max_length=512)]
    layer: NotRequired[Annotated[int, Field(description="Of the direction; the middle by default.")]]
    reading: NotRequired[Annotated[Literal["last", "mean"], Field(description="Of the direction; mean by default.")]]


@dataclass(frozen=True)
class Read:
    """Tokens of conversations, and where their replies begin."""

    tokens: Sequence[Sequence[int]]
    starts: Sequence[int]

    @property
    def size(self) -> int:
        """All tokens."""
        return sum(map(len, self.tokens))


def read_replies(target: Target, conversations: Sequence[Conversation]) -> Read:
    """The tokens of conversations that end with the assistant's reply.

    Raises:
        ToolError: one does not.
    """
    tokens, starts = [], []
    for number, messages in enumerate(conversations, start=1):
        if len(messages) < 2 or messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
            raise ToolError(f"conversation {number} must end with a reply: the last message is the assistant's")
        before = target.render(messages[:-1])
        whole = target.render(messages[:-1], prefill=messages[-1]["content"])
        tokens.append(whole)
        starts.append(min(len(before), len(whole) - 1))
    return Read(tokens, starts)


def score_conversations(
    target: Target, conversations: Sequence[Conversation], monitor: Monitor
) -> tuple[list[float], Cost]:
    """One score per conversation, and what was run for it.

    Raises:
        ToolError: not exactly one sort of monitor is given, or what it names does not exist or fit.
    """
    sorts = [name for name in ("vector", "values", "features", "words", "question") if name in monitor]
    if len(sorts) != 1:
        raise ToolError(
            f"a monitor is one of vector, values, features, words and question; this has {', '.join(sorts) or 'none'}; "
            'for example {"words": {"poison": 1.0}}'
        )
    if "words" in monitor:
        weights = {word.casefold(): weight for word, weight in monitor["words"].items()}
        said = [set(words_in(messages[-1]["content"])) for messages in conversations]
        return [sum(weights.get(word, 0.0) for word in words) for words in said], Cost()
    if "question" in monitor:
        return _asked(target, conversations, monitor["question"])
    read = read_replies(target, conversations)
    reading = monitor.get("reading", "mean")
    cost = Cost(prompt_tokens=read.size)
    if "features" in monitor:
        chosen = choose_sae(target, monitor.get("sae"))
        weights_of = {chosen.sae.check_feature(int(index)): weight for index, weight in monitor["features"].items()}
        encoded = [chosen.sae.encode(states).cpu() for states in _states(target, read, chosen.site)]
        index = torch.tensor(list(weights_of))
        weight = torch.tensor(list(weights_of.values()))
        return [_over(rows[:, index] @ weight, reading) for rows in encoded], cost
    site, direction = _direction(target, monitor)
    return [_over(states @ direction, reading) for states in _states(target, read, site)], cost


def fit_monitor(target: Target, fit: Fit) -> tuple[Monitor, str | None, Cost]:
    """A monitor made from labelled conversations, the handle of its vector (if it is one), and what was run.

    The difference of means is taken between the activations of the replies, their means over tokens or their last ones;
    the feature is the one whose mean over the reply has the largest area under the ROC curve on the examples, either
    way round.
    """
    examples = [*fit["positive"], *fit["negative"]]
    read = read_replies(target, examples)
    cost = Cost(prompt_tokens=read.size)
    labels = np.arange(len(examples)) < len(fit["positive"])
    if fit["method"] == "sae_feature":
        chosen = choose_sae(target, None)
        means = torch.stack([chosen.sae.encode(states).mean(0).cpu() for states in _states(target, read, chosen.site)])
        alive = (means > 0).any(dim=0).nonzero().squeeze(1).tolist()
        areas = {index: auroc(means[:, index].double().numpy(), labels) for index in alive}
        best = max(areas, key=lambda index: abs(areas[index] - 0.5))
        return {"features": {str(best): 1.0 if areas[best] >= 0.5 else -1.0}}, None, cost
    site = target.site("resid_post", fit.get("layer", (target.layers - 1) // 2))
    reading = fit.get("reading", "mean")
    rows = _states(target, read, site)
    means = torch.stack([states[-1] if reading == "last" else states.mean(0) for states in rows])
    direction = means[: len(fit["positive"])].mean(0) - means[len(fit["positive"]) :].mean(0)
    handle = keep_vector(target, Vector(site, direction, "difference_of_means", {"over": "replies"}))
    return {"vector": handle, "layer": site.layer, "reading": reading}, handle, cost


def _direction(target: Target, monitor: Monitor) -> tuple[Site, Tensor]:
    if "vector" in monitor:
        vector, _ = kept_direction(target, monitor["vector"])
        if "layer" not in monitor and "site" not in monitor:
            return vector.site, vector.direction
        return target.site(monitor.get("site", "resid_post"), monitor.get("layer", vector.site.layer)), vector.direction
    if "layer" not in monitor:
        raise ToolError('a direction given by its values needs a layer, for example "layer": 1')
    direction = torch.tensor(monitor["values"], dtype=torch.float32)
    check_width(target, direction, what="the monitor's direction")
    return target.site(monitor.get("site", "resid_post"), monitor["layer"]), direction


def _states(target: Target, read: Read, site: Site) -> list[Tensor]:
    """Activations of each reply's tokens, ``(token, d_model)``."""
    whole = target.capture(read.tokens, [site], positions="all")[site]
    return [states[start:] for states, start in zip(whole, read.starts, strict=True)]


def _over(values: Tensor, reading: Over) -> float:
    if reading == "last":
        return float(values[-1])
    return float(values.mean() if reading == "mean" else values.max())


def _asked(target: Target, conversations: Sequence[Conversation], question: str) -> tuple[list[float], Cost]:
    pairs = []
    for messages in conversations:
        asked: list[Message] = [*messages, {"role": "user", "content": question}]
        before = target.render(asked)
        pairs += [target.split(before, target.render(asked, prefill=said), said) for said in ("yes", "no")]
    values = [sum(row) for row in target.score(pairs)]
    cost = Cost(prompt_tokens=sum(len(prompt) + len(said) for prompt, said in pairs))
    return [yes - no for yes, no in zip(values[::2], values[1::2], strict=True)], cost
