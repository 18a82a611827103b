"""How results of the prompting tools are shown: what the models said, side by side, with what differs marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marple.traces.review.blocks import Block, Cell, Heat, Note, Table, Token, bar, differing, level, share
from marple.traces.review.fields import items, mapping, number, rows, text

__all__ = ["ROWS", "VIEWS", "conversation_cell", "left_out", "plain", "said_cell"]

ROWS = 60
"""Rows of a table; what is left out is said."""
_SAMPLES = 8


def left_out(n: int) -> str:
    """What is said below a table that does not show all of ``n`` rows."""
    return f"{n - ROWS:,} more rows are in the data" if n > ROWS else ""


def said_cell(texts: Sequence[Any], others: Sequence[Any] = (), **more: Any) -> Cell:
    """Some replies in a cell; the words stand out that none of the ``others`` has."""
    said = [one.get("text") if isinstance(one, Mapping) else one for one in texts]
    than = [one.get("text") if isinstance(one, Mapping) else one for one in others]
    return Cell(texts=differing(said[:_SAMPLES], than, **more))


def conversation_cell(conversations: Any, at: int, *, reply: bool = False) -> Cell:
    """What was said to the model in one of several conversations; only its number where that is not known.

    Args:
        conversations: each a list of messages with ``role`` and ``content``.
        at: which of them, from 0.
        reply: whether the last message is the reply that was judged, to be shown as such.
    """
    said = rows(items(conversations)[at]) if at < len(items(conversations)) else []
    if not said:
        return Cell(str(at + 1), "num")
    if reply:
        return said_cell([said[-1].get("content")])
    told = [one for one in said if one.get("role") != "assistant"] or said
    return Cell("\n".join(text(one.get("content")) for one in told))


def _continuations(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    found = rows(data.get("replies")) or rows(data.get("continuations"))
    begin = text(data.get("prefill")) or text(data.get("text"))
    counted: dict[str, int] = {}
    for one in found:
        counted[text(one.get("text"))] = counted.get(text(one.get("text")), 0) + 1
    yield Table(
        f"What the {text(data.get('on')) or 'target'} said",
        ("times", "reply"),
        [
            (Cell(str(n), "num"), said_cell([said]))
            for said, n in sorted(counted.items(), key=lambda one: -one[1])[:ROWS]
        ],
        note=f"begun with “{begin}”" if begin else left_out(len(counted)),
        untrusted=True,
    )


def _battery(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    found = sorted(rows(data.get("rows")), key=lambda row: -(number(_nats(row)) or 0.0))
    largest = max((number(_nats(row)) or 0.0 for row in found), default=0.0)
    yield Table(
        "Prompts, those that depart most first",
        ("prompt", "target", "reference", "nats a token"),
        [
            (
                Cell(text(row.get("prompt"))),
                said_cell(items(row.get("replies")), items(row.get("reference_replies"))),
                said_cell(items(row.get("reference_replies")), items(row.get("replies"))),
                Cell(
                    f"{number(_nats(row)) or 0.0:.3f}",
                    "bad" if mapping(row.get("divergence")).get("outlier") else "num",
                    bar=(number(_nats(row)) or 0.0) / largest if largest else 0.0,
                ),
            )
            for row in found[:ROWS]
        ],
        note=left_out(len(found)),
        untrusted=True,
    )
    departures = rows(data.get("departures"))
    if departures:
        most = max((number(row.get("nats_per_token")) or 0.0 for row in departures), default=0.0)
        yield Table(
            "Mean departure by slot",
            ("slot", "value", "nats a token", "prompts"),
            [
                (
                    Cell(text(row.get("slot"))),
                    Cell(text(row.get("value"))),
                    bar(row.get("nats_per_token"), most, 3),
                    Cell(str(row.get("prompts")), "num"),
                )
                for row in departures[:ROWS]
            ],
        )


def _nats(row: Mapping[str, Any]) -> Any:
    return mapping(row.get("divergence")).get("nats_per_token")


def _logprobs(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    found = rows(data.get("continuations"))
    yield Table(
        "Log-probabilities, in nats",
        ("continuation", "total", "a token", "reference", "difference"),
        [
            (
                Cell(text(row.get("continuation"))),
                share(row.get("total")),
                share(row.get("mean")),
                share(row.get("reference_total")),
                share(row.get("difference"), sign=True),
            )
            for row in found[:ROWS]
        ],
        note=left_out(len(found)),
    )
    for row in found[:4]:
        tokens = rows(row.get("tokens"))
        if len(tokens) > 1:
            yield Heat(
                "Nats by token",
                [
                    Token(text(one.get("token")), level(one.get("logprob"), 6.0), f"{plain(one.get('logprob'))} nats")
                    for one in tokens[:400]
                ],
            )


def _thinking(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    yield Table(
        "Thought and answer",
        ("thought", "answer", "outcome"),
        [
            (said_cell([row.get("thought") or ""]), said_cell([row.get("answer")]), Cell(text(row.get("outcome"))))
            for row in rows(data.get("samples"))[:ROWS]
        ],
        untrusted=True,
    )


def _resample(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    kept = rows(data.get("sentences"))
    if kept:
        yield Table(
            "What each sentence decides",
            ("sentence", "moves the outcome by", "by chance", "q"),
            [
                (
                    said_cell([row.get("sentence")]),
                    bar(mapping(row.get("importance")).get("distance")),
                    share(mapping(row.get("importance")).get("chance_95")),
                    share(row.get("q"), 3),
                )
                for row in kept[:ROWS]
            ],
            untrusted=True,
        )
    ends = [(f"{row.get('sentences_kept')} sentences kept", row) for row in rows(data.get("boundaries"))]
    ends += [(name.replace("_", " "), mapping(arm)) for name, arm in mapping(data.get("arms")).items()]
    if ends:
        yield Table(
            "Continued from there",
            ("from", "outcomes", "continuations"),
            [
                (Cell(name), Cell(_shares(row.get("shares"))), said_cell(items(row.get("continuations"))))
                for name, row in ends[:ROWS]
            ],
            untrusted=True,
        )
    by_chance = number(controls.get("mean_distance_by_chance"))
    if by_chance is not None:
        yield Note("By chance", f"two halves of the same place differ by {by_chance:.2f} on average", control=True)


def _intervene(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    edited, plain = items(data.get("replies")), items(data.get("without_edits"))
    asked = data.get("conversations")
    shown = [
        (conversation_cell(asked, at), said_cell(items(one), items(plain[at]) if at < len(plain) else ()))
        + ((said_cell(items(plain[at]), items(one)),) if at < len(plain) else ())
        for at, one in enumerate(edited[:ROWS])
    ]
    columns = ("conversation", "under the intervention", "without edits") if plain else ("conversation", "replies")
    yield Table("Replies", columns, shown, note=left_out(len(edited)), untrusted=True)


def _shares(value: Any) -> str:
    return ", ".join(f"{name} {number(part) or 0:.2f}" for name, part in mapping(value).items())


def plain(value: Any) -> str:
    """A number with two digits."""
    real = number(value)
    return "–" if real is None else f"{real:.2f}"


VIEWS = {
    "chat": _continuations,
    "prefill": _continuations,
    "complete": _continuations,
    "battery": _battery,
    "logprobs": _logprobs,
    "read_thinking": _thinking,
    "resample": _resample,
    "intervene": _intervene,
}
