"""How results of the prompting tools are shown: what the models said, side by side, with what differs marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marple.traces.review.blocks import Block, Cell, Heat, Note, Table, Token, bar, differing, level, share
from marple.traces.review.fields import items, mapping, number, rows, text

__all__ = ["VIEWS"]

_ROWS = 60
"""Rows of a table; what is left out is said."""
_SAMPLES = 8


def _left_out(n: int) -> str:
    return f"{n - _ROWS:,} more rows are in the data" if n > _ROWS else ""


def _said(texts: Sequence[Any], others: Sequence[Any] = (), **more: Any) -> Cell:
    said = [one.get("text") if isinstance(one, Mapping) else one for one in texts]
    than = [one.get("text") if isinstance(one, Mapping) else one for one in others]
    return Cell(texts=differing(said[:_SAMPLES], than, **more))


def _continuations(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    found = rows(data.get("replies")) or rows(data.get("continuations"))
    begin = text(data.get("prefill")) or text(data.get("text"))
    counted: dict[str, int] = {}
    for one in found:
        counted[text(one.get("text"))] = counted.get(text(one.get("text")), 0) + 1
    yield Table(
        f"What the {text(data.get('on')) or 'target'} said",
        ("times", "reply"),
        [(Cell(str(n), "num"), _said([said])) for said, n in sorted(counted.items(), key=lambda one: -one[1])[:_ROWS]],
        note=f"begun with “{begin}”" if begin else _left_out(len(counted)),
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
                _said(items(row.get("replies")), items(row.get("reference_replies"))),
                _said(items(row.get("reference_replies")), items(row.get("replies"))),
                Cell(
                    f"{number(_nats(row)) or 0.0:.3f}",
                    "bad" if mapping(row.get("divergence")).get("outlier") else "num",
                    bar=(number(_nats(row)) or 0.0) / largest if largest else 0.0,
                ),
            )
            for row in found[:_ROWS]
        ],
        note=_left_out(len(found)),
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
                for row in departures[:_ROWS]
            ],
        )


def _nats(row: Mapping[str, Any]) -> Any:
    return mapping(row.get("divergence")).get("nats_per_token")


def _compare(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    yield from _differences(data, controls, "target", "reference")


def _contrast(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    yield from _differences(data, controls, "first", "second")


def _differences(data: Mapping[str, Any], controls: Mapping[str, Any], first: str, second: str) -> Iterator[Block]:
    found = [row for row in rows(data.get("rows")) if row.get("found") is True]
    for name in ("words", "leading"):
        for one in rows(data.get(name))[:6]:
            yield _word_table(one, first, second)
    yield Table(
        "Found: n-grams used differently",
        ("n-gram", "condition", first, second, "log odds", "q"),
        [
            (
                Cell(text(row.get("ngram")), "strong"),
                Cell(text(row.get("condition")) or "(all)"),
                Cell(_of(row, first), "num"),
                Cell(_of(row, second), "num"),
                share(row.get("log_odds"), sign=True),
                share(row.get("q"), 3),
            )
            for row in found[:20]
        ],
        note=f"{len(found) - 20} more found" if len(found) > 20 else "" if found else "none",
    )
    marked = {text(row.get("ngram")) for row in found} | {text(one.get("word")) for one in rows(data.get("words"))}
    marked = {one for one in marked if " " not in one}
    yield _replies(rows(data.get("replies")), first, second, marked)
    yield from _nulls(controls)


def _word_table(one: Mapping[str, Any], first: str, second: str) -> Table:
    word = text(one.get("word")) or text(one.get("ngram"))
    return Table(
        f"“{word}” in the replies",
        ("condition", first, second, "difference", "95 %"),
        [
            (
                Cell(text(row.get("condition"))),
                bar(row.get(f"{first}_share")),
                bar(row.get(f"{second}_share")),
                share(row.get("difference"), sign=True),
                Cell(f"{_plain(row.get('ci_low'))} to {_plain(row.get('ci_high'))}", "num"),
            )
            for row in rows(one.get("conditions"))[:_ROWS]
        ],
    )


def _replies(found: Sequence[Mapping[str, Any]], first: str, second: str, words: set[str]) -> Table:
    paired = any(first in row for row in found)
    columns = ("condition", "prompt", first, second) if paired else ("set", "prompt", "replies")
    shown: list[tuple[Cell, ...]] = []
    for row in found[:_ROWS]:
        head = (Cell(text(row.get("condition")) or text(row.get("set"))), Cell(text(row.get("prompt"))))
        if paired:
            one, other = items(row.get(first)), items(row.get(second))
            shown.append((*head, _said(one, extra=words), _said(other, extra=words)))
        else:
            shown.append((*head, _said(items(row.get("replies")), extra=words)))
    return Table("Replies", columns, shown, note=_left_out(len(found)), untrusted=True)


def _nulls(controls: Mapping[str, Any]) -> Iterator[Block]:
    tested = {name.replace("_", " "): mapping(one) for name, one in controls.items() if mapping(one).get("tested")}
    if tested:
        yield Table(
            "Beside what chance finds",
            ("comparison", "tested", "found", "largest |z|", "threshold from shuffles"),
            [
                (
                    Cell(name),
                    Cell(str(one.get("tested")), "num"),
                    Cell(str(one.get("found")), "num"),
                    share(one.get("largest_z")),
                    share(one.get("shuffled_z_threshold")),
                )
                for name, one in tested.items()
            ],
            control=True,
        )


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
            for row in found[:_ROWS]
        ],
        note=_left_out(len(found)),
    )
    for row in found[:4]:
        tokens = rows(row.get("tokens"))
        if len(tokens) > 1:
            yield Heat(
                "Nats by token",
                [
                    Token(text(one.get("token")), level(one.get("logprob"), 6.0), f"{_plain(one.get('logprob'))} nats")
                    for one in tokens[:400]
                ],
            )


def _thinking(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    yield Table(
        "Thought and answer",
        ("thought", "answer", "outcome"),
        [
            (_said([row.get("thought") or ""]), _said([row.get("answer")]), Cell(text(row.get("outcome"))))
            for row in rows(data.get("samples"))[:_ROWS]
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
                    _said([row.get("sentence")]),
                    bar(mapping(row.get("importance")).get("distance")),
                    share(mapping(row.get("importance")).get("chance_95")),
                    share(row.get("q"), 3),
                )
                for row in kept[:_ROWS]
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
                (Cell(name), Cell(_shares(row.get("shares"))), _said(items(row.get("continuations"))))
                for name, row in ends[:_ROWS]
            ],
            untrusted=True,
        )
    by_chance = number(controls.get("mean_distance_by_chance"))
    if by_chance is not None:
        yield Note("By chance", f"two halves of the same place differ by {by_chance:.2f} on average", control=True)


def _intervene(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    edited, plain = items(data.get("replies")), items(data.get("without_edits"))
    shown = [
        (Cell(str(at + 1), "num"), _said(items(one), items(plain[at]) if at < len(plain) else ()))
        + ((_said(items(plain[at]), items(one)),) if at < len(plain) else ())
        for at, one in enumerate(edited[:_ROWS])
    ]
    columns = ("conversation", "under the intervention", "without edits") if plain else ("conversation", "replies")
    yield Table("Replies", columns, shown, note=_left_out(len(edited)), untrusted=True)


def _shares(value: Any) -> str:
    return ", ".join(f"{name} {number(part) or 0:.2f}" for name, part in mapping(value).items())


def _of(row: Mapping[str, Any], name: str) -> str:
    return f"{number(row.get(f'{name}_count')) or 0:.0f} of {number(row.get(f'{name}_n')) or 0:.0f}"


def _plain(value: Any) -> str:
    real = number(value)
    return "–" if real is None else f"{real:.2f}"


VIEWS = {
    "chat": _continuations,
    "prefill": _continuations,
    "complete": _continuations,
    "battery": _battery,
    "compare": _compare,
    "contrast": _contrast,
    "logprobs": _logprobs,
    "read_thinking": _thinking,
    "resample": _resample,
    "intervene": _intervene,
}
