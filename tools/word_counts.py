"""How often given words are said, condition by condition, whether or not anything differs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.errors import ToolError
from marple.tools.ngrams import ngrams, word_edges
from marple.tools.statistics import newcombe_interval
from marple.tools.target.text import READ_ON

__all__ = ["Cell", "WordCount", "count_ngram", "count_word", "counts_as_data", "spread_line", "word_lines"]

_MOST_CELLS = 8
_WORDS_A_LINE = 10

Quote = Callable[[str], str]


@dataclass(frozen=True)
class Cell:
    """The replies of two groups that are set against each other in one condition."""

    condition: str
    first: Sequence[str]
    second: Sequence[str]
    prompts: Sequence[str]
    votes: int = 1
    """How many replies share one vote in the interval: samples of one prompt where prompts are the unit."""


@dataclass(frozen=True)
class WordCount:
    """Replies that contain a word, of two groups in one condition."""

    condition: str
    first: int
    second: int
    first_n: int
    second_n: int
    low: float
    high: float
    """95 % interval of the difference of the shares (Newcombe 1998), on these prompts."""
    prompts: int
    """Prompts that contain the word themselves."""
    prompts_n: int

    @property
    def first_share(self) -> float:
        """Share of the first group's replies that contain the word."""
        return self.first / self.first_n

    @property
    def second_share(self) -> float:
        """Share of the second group's replies that contain the word."""
        return self.second / self.second_n

    @property
    def difference(self) -> float:
        """The first group's share minus the second's."""
        return self.first_share - self.second_share

    def to_dict(self, *, first: str, second: str) -> dict[str, Any]:
        """As data, with the groups' names in the names of their counts."""
        return {
            "condition": self.condition,
            f"{first}_count": self.first,
            f"{first}_n": self.first_n,
            f"{first}_share": self.first_share,
            f"{second}_count": self.second,
            f"{second}_n": self.second_n,
            f"{second}_share": self.second_share,
            "difference": self.difference,
            "ci_low": self.low,
            "ci_high": self.high,
            "prompts_with_word": self.prompts,
            "prompts_n": self.prompts_n,
        }


def count_word(word: str, cells: Sequence[Cell]) -> list[WordCount]:
    """Count a word or phrase in every cell: in any case, whole words only, any white space between its words.

    Raises:
        ToolError: the word is only white space.
    """
    pieces = word.split()
    if not pieces:
        raise ToolError(f'words: {word!r} is only white space; for example "words": ["lamp", "table lamp"]')
    before, behind = word_edges(word.strip())
    pattern = re.compile(before + r"\s+".join(map(re.escape, pieces)) + behind, re.IGNORECASE)
    return [_count(cell, lambda text: pattern.search(text) is not None) for cell in cells]


def count_ngram(ngram: str, cells: Sequence[Cell]) -> list[WordCount]:
    """Count an n-gram in every cell, the way differences are tested."""
    return [_count(cell, lambda text: ngram in ngrams(text)) for cell in cells]


def _count(cell: Cell, holds: Callable[[str], bool]) -> WordCount:
    first, second = sum(map(holds, cell.first)), sum(map(holds, cell.second))
    sizes = len(cell.first), len(cell.second)
    low, high = newcombe_interval(
        first / cell.votes, second / cell.votes, first_n=sizes[0] / cell.votes, second_n=sizes[1] / cell.votes
    )
    return WordCount(cell.condition, first, second, *sizes, low, high, sum(map(holds, cell.prompts)), len(cell.prompts))


def counts_as_data(
    counted: Mapping[str, Sequence[WordCount]], *, named: str, first: str, second: str
) -> list[dict[str, Any]]:
    """One record per word with its counts under ``conditions``; ``named`` is the key of the word."""
    return [
        {named: name, "conditions": [row.to_dict(first=first, second=second) for row in rows]}
        for name, rows in counted.items()
    ]


def word_lines(
    counts: Mapping[str, Sequence[WordCount]],
    *,
    quote: Quote,
    label: Quote,
    first: str,
    second: str,
    vote: str = "reply",
) -> Iterator[str]:
    """Words as text: one line to sum up each, then each in every condition, the largest difference first.

    Words that no reply contains share one line; conditions in which neither group says a word are counted.

    Args:
        counts: word to its counts, those over everything first.
        quote: makes text from a model safe to show.
        label: how a condition is called.
        first: what the first group is called.
        second: what the second group is called.
        vote: what counts as one observation in the interval.
    """
    said = [(word, row) for word, rows in counts.items() for row in rows if _is_said(rows)]
    table = sorted((one for one in said if _is_said([one[1]])), key=lambda one: -abs(one[1].difference))
    yield (
        "replies that contain the words asked for (95 % interval of the difference in percentage points, one vote per "
        f"{vote}):"
    )
    if len(table) > 1:
        yield (
            f"the intervals are not corrected for the {len(table)} rows of this table: where nothing differs, about 1 "
            "in 20 leaves out 0 by chance"
        )
    for word, rows in counts.items():
        if _is_said(rows) and len(rows) > 1:
            yield f"  {quote(word)}: {_summed_up(rows, label)}"
    yield from _silence({word: rows for word, rows in counts.items() if not _is_said(rows)}, quote, first, second)
    if table:
        left = len(said) - len(table)
        cut = f" ({left} with 0 in both left out: {READ_ON})" if left else ""
        yield f"these row by row, the largest difference first{cut}:"
    for word, row in table:
        yield f"  {quote(word)}, {label(row.condition)}: {_measured(row, first, second)}"


def _silence(counts: Mapping[str, Sequence[WordCount]], quote: Quote, first: str, second: str) -> Iterator[str]:
    """Words that no reply of either group contains, with the one count that they share."""
    if not counts:
        return
    widest = [max(rows, key=lambda row: row.first_n + row.second_n) for rows in counts.values()]
    words = [
        quote(word) + (f" (it stands in {row.prompts} of the {row.prompts_n} prompts)" if row.prompts else "")
        for word, row in zip(counts, widest, strict=True)
    ]
    yield f"  said in no reply ({_shares(widest[0], first, second)}): {', '.join(words[:_WORDS_A_LINE])}"
    for at in range(_WORDS_A_LINE, len(words), _WORDS_A_LINE):
        yield f"    nor {', '.join(words[at : at + _WORDS_A_LINE])}"


def _is_said(rows: Sequence[WordCount]) -> bool:
    return any(row.first or row.second for row in rows)


def _summed_up(rows: Sequence[WordCount], label: Quote) -> str:
    """The shares over everything and in the condition where they differ most; rows are at least two."""
    largest = max(rows[1:], key=lambda row: abs(row.difference))
    parts = [f"{label(row.condition)} {row.first_share:.0%} v {row.second_share:.0%}" for row in (rows[0], largest)]
    return ("; largest: " if len(rows) > 2 else "; ").join(parts)


def spread_line(ngram: str, counts: Sequence[WordCount], *, quote: Quote, label: Quote) -> str:
    """One n-gram over all conditions in one line, counts of the first group before those of the second.

    The first row comes first, then the largest differences. Conditions in which neither group says it are counted.
    """
    said = [row for row in (*counts[:1], *sorted(counts[1:], key=lambda row: -abs(row.difference))) if _is_said([row])]
    shown = "; ".join(
        f"{label(row.condition)} {row.first} of {row.first_n} and {row.second} of {row.second_n}"
        for row in said[:_MOST_CELLS]
    )
    more, silent = len(said) - _MOST_CELLS, len(counts) - len(said)
    cut = f"; {more} more conditions: {READ_ON}" if more > 0 else ""
    none = f"; in {silent} more none of either" if silent else ""
    return f"  {quote(ngram)}: {shown}{cut}{none}"


def _measured(row: WordCount, first: str, second: str) -> str:
    named = f"; it stands in {row.prompts} of the {row.prompts_n} prompts" if row.prompts else ""
    return _shares(row, first, second) + named


def _shares(row: WordCount, first: str, second: str) -> str:
    return (
        f"{first} {row.first} of {row.first_n} ({row.first_share:.0%}), "
        f"{second} {row.second} of {row.second_n} ({row.second_share:.0%}), "
        f"{100 * row.difference:+.0f} [{100 * row.low:+.0f}, {100 * row.high:+.0f}]"
    )
