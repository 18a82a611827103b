"""How comparisons of two models or two sets of prompts are shown: counts, what was found, and the replies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marple.traces.review.blocks import Block, Cell, Table, bar, share
from marple.traces.review.fields import items, mapping, number, rows, text
from marple.traces.review.views_prompting import ROWS, left_out, plain, said_cell

__all__ = ["VIEWS"]


def _compare(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    yield from _differences(data, controls, "target", "reference")


def _contrast(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    yield from _differences(data, controls, "first", "second")


def _differences(data: Mapping[str, Any], controls: Mapping[str, Any], first: str, second: str) -> Iterator[Block]:
    found = [row for row in rows(data.get("rows")) if row.get("found") is True]
    counted = [*rows(data.get("words")), *rows(data.get("leading"))][:8]
    names = {_word(one) for one in counted}
    for one in counted:
        if not any(part in names for part in _word(one).split()[1:] + _word(one).split()[:-1]):
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


def _word(one: Mapping[str, Any]) -> str:
    return text(one.get("word")) or text(one.get("ngram"))


def _word_table(one: Mapping[str, Any], first: str, second: str) -> Table:
    return Table(
        f"“{_word(one)}” in the replies",
        ("condition", first, second, "difference", "95 %"),
        [
            (
                Cell(text(row.get("condition"))),
                bar(row.get(f"{first}_share")),
                bar(row.get(f"{second}_share")),
                share(row.get("difference"), sign=True),
                Cell(f"{plain(row.get('ci_low'))} to {plain(row.get('ci_high'))}", "num"),
            )
            for row in rows(one.get("conditions"))[:ROWS]
        ],
    )


def _replies(found: Sequence[Mapping[str, Any]], first: str, second: str, words: set[str]) -> Table:
    paired = any(first in row for row in found)
    columns = ("condition", "prompt", first, second) if paired else ("set", "prompt", "replies")
    shown: list[tuple[Cell, ...]] = []
    for row in found[:ROWS]:
        head = (Cell(text(row.get("condition")) or text(row.get("set"))), Cell(text(row.get("prompt"))))
        if paired:
            one, other = items(row.get(first)), items(row.get(second))
            shown.append((*head, said_cell(one, extra=words), said_cell(other, extra=words)))
        else:
            shown.append((*head, said_cell(items(row.get("replies")), extra=words)))
    return Table("Replies", columns, shown, note=left_out(len(found)), untrusted=True)


def _nulls(controls: Mapping[str, Any]) -> Iterator[Block]:
    tested = {name.replace("_", " "): mapping(one) for name, one in controls.items() if mapping(one).get("tested")}
    if tested:
        yield Table(
            "Beside what chance finds",
            ("comparison", "tested", "found", "largest |z|", "threshold"),
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


def _of(row: Mapping[str, Any], name: str) -> str:
    return f"{number(row.get(f'{name}_count')) or 0:.0f} of {number(row.get(f'{name}_n')) or 0:.0f}"


VIEWS = {"compare": _compare, "contrast": _contrast}
