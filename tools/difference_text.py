"""Differences as text: every row with its condition, and every row that is left out counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from marple.tools.differences import EVERYTHING, Difference, Differences
from marple.tools.ngrams import is_filler
from marple.tools.target.text import READ_ON, fit_lines

__all__ = [
    "KEPT_ROWS",
    "Folded",
    "Wording",
    "difference_lines",
    "fit_differences",
    "fold_overlapping",
    "kept_line",
    "leading_ngrams",
    "near_miss_lines",
    "null_line",
]

KEPT_ROWS = 2000
"""Rows that go into a result's data, those with the largest ``|z|`` first."""
_NEAR_MISSES = 5
_OUTSIDE_EVERYTHING = 2
_CANDIDATES = 40
_TEXT_LIMIT = 4000
_NEAR_MISS_LIMIT = 1500
_ABOUT_EQUAL = 0.15
_ALSO_SHOWN = 3


@dataclass(frozen=True)
class Wording:
    """How rows are put into words."""

    quote: Callable[[str], str]
    """Makes text from a model safe to show."""
    first: str
    second: str
    samples: int = 1
    """Replies behind one count: the samples of a prompt where prompts are the unit."""
    conditions: bool = True
    """Whether the condition of a row means something to the reader."""
    note: Callable[[Difference], str] = lambda row: ""
    """What else to say of a row."""


@dataclass
class Folded:
    """A row that stands for others of one condition: n-grams of the same phrase, said about as often."""

    row: Difference
    parts: list[Difference] = field(default_factory=list)
    """Those whose n-gram is part of one that is shown."""
    more: list[Difference] = field(default_factory=list)
    """Those that run into ``row``'s n-gram or into one another."""

    def takes(self, row: Difference) -> bool:
        """Take a row in if it belongs here."""
        if (row.z > 0) != (self.row.z > 0) or not _about_equal(row, self.row):
            return False
        chain = [one.ngram for one in (self.row, *self.more)]
        if any(f" {row.ngram} " in f" {other} " for other in chain):
            self.parts.append(row)
        elif any(_runs_into(row.ngram, other) or _runs_into(other, row.ngram) for other in chain):
            self.more.append(row)
        else:
            return False
        return True


def fold_overlapping(rows: Sequence[Difference], *, note: Callable[[Difference], str] = lambda row: "") -> list[Folded]:
    """Fold the n-grams of a phrase into one row: the longest, among equally long ones that with the largest ``|z|``.

    Two n-grams are of one phrase where one is part of the other or runs into it ("do not know", "know of that"). Their
    rows must be of one condition, differ in the same direction, have about the same shares of replies, and the same to
    note.
    """
    folded: list[Folded] = []
    holding: dict[tuple[str, ...], list[Folded]] = {}
    for row in sorted(rows, key=lambda row: (is_filler(row.ngram), -len(row.ngram.split()), -abs(row.z))):
        places = [(row.condition, note(row), word) for word in row.ngram.split()]
        group = next((one for place in places for one in holding.get(place, ()) if one.takes(row)), None)
        if group is None:
            group = Folded(row)
            folded.append(group)
        for place in places:
            holding.setdefault(place, []).append(group)
    order = {id(row): at for at, row in enumerate(rows)}
    return sorted(folded, key=lambda group: order[id(group.row)])


def _about_equal(one: Difference, other: Difference) -> bool:
    """Whether the shares of both groups differ by at most 15 % of the largest of the four."""
    shares = [(row.first / row.first_n, row.second / row.second_n) for row in (one, other)]
    within = _ABOUT_EQUAL * max(*shares[0], *shares[1]) + 1e-9
    return all(abs(a - b) <= within for a, b in zip(*shares, strict=True))


def _runs_into(one: str, other: str) -> bool:
    """Whether the second begins with the first's end, and be it one word that is no filler."""
    first, second = one.split(), other.split()
    common = (size for size in range(1, min(len(first), len(second)) + 1) if first[-size:] == second[:size])
    return any(size > 1 or not is_filler(second[0]) for size in common)


def leading_ngrams(differences: Differences, *, most: int = 3) -> list[str]:
    """The n-grams found with the largest ``|z|``, fillers and those that another stands for left out."""
    leading: list[str] = []
    told: set[str] = set()
    for group in fold_overlapping(differences.found):
        if not is_filler(group.row.ngram) and group.row.ngram not in told:
            leading.append(group.row.ngram)
            told.update(row.ngram for row in (group.row, *group.parts, *group.more))
    return leading[:most]


def kept_line(differences: Differences) -> str:
    """How many rows the data lacks, or '' where it has all."""
    left = len(differences.rows) - KEPT_ROWS
    return f"the data holds the {KEPT_ROWS} rows with the largest |z|, {left} are left out" if left > 0 else ""


def difference_lines(differences: Differences, *, wording: Wording, most: int = 12) -> Iterator[str]:
    """What was found, condition by condition.

    The counts add up: the rows found in a condition are those shown, those folded into one of the same phrase, those
    of function words or punctuation alone, and those that ``most`` cuts off.
    """
    found = differences.found
    for condition in dict.fromkeys(row.condition for row in found):
        rows = [row for row in found if row.condition == condition]
        folded = fold_overlapping(rows, note=wording.note)
        telling = [group for group in folded if not is_filler(group.row.ngram)]
        fillers = [group.row for group in folded if is_filler(group.row.ngram)]
        parts = [f"{len(rows)} found, {min(most, len(telling))} shown"]
        if len(folded) < len(rows):
            parts.append(f"{len(rows) - len(folded)} folded into one of the same phrase, said about as often")
        if fillers:
            largest = max(abs(row.z) for row in fillers)
            parts.append(
                f"{len(fillers)} of function words or punctuation alone left out (|z| up to {largest:.2f}: {READ_ON})"
            )
        place = f"condition {wording.quote(condition)}: " if wording.conditions else ""
        yield place + ", ".join(parts)
        yield from (f"  {_words(group.row, wording)}{_also(group, wording)}" for group in telling[:most])
        if len(telling) > most:
            yield f"  {len(telling) - most} more: {READ_ON}"


def near_miss_lines(differences: Differences, *, wording: Wording) -> Iterator[str]:
    """The largest differences that were not found, at least two of them in single conditions, marked as chance.

    N-grams found in some condition, and those of function words or punctuation alone, are left out.
    """
    found = {row.ngram for row in differences.found}
    rows = _near_misses([row for row in differences.rows if not row.found and row.ngram not in found])
    if not rows:
        yield "no other differences" if found else "nothing found"
        return
    left = len(differences.rows) - len(differences.found) - len(rows)
    what = "not found: the largest differences of other n-grams" if found else "nothing found; the largest differences"
    yield f"{what}, all within what chance produces ({left} more: {READ_ON}):"
    for row in rows:
        place = f"condition {wording.quote(row.condition)}: " if wording.conditions else ""
        yield f"  {place}{_words(row, wording)}{_verdict(row, differences)}"


def _near_misses(rows: Sequence[Difference]) -> list[Difference]:
    telling = [row for row in rows if not is_filler(row.ngram)]
    outside = _folded(islice((row for row in telling if row.condition != EVERYTHING), _CANDIDATES))
    chosen = outside[:_OUTSIDE_EVERYTHING]
    others = [row for row in _folded(telling[:_CANDIDATES]) if row not in chosen]
    return sorted([*chosen, *others[: _NEAR_MISSES - len(chosen)]], key=lambda row: -abs(row.z))


def _folded(rows: Iterable[Difference]) -> list[Difference]:
    return [group.row for group in fold_overlapping(list(rows))]


def fit_differences(lines: Sequence[str], differences: Differences, *, wording: Wording) -> str:
    """Lines that come first, what was found, and the near misses, for which there is always room."""
    near = fit_lines(near_miss_lines(differences, wording=wording), limit=_NEAR_MISS_LIMIT)
    shown = [*lines, *difference_lines(differences, wording=wording)]
    return fit_lines(shown, limit=_TEXT_LIMIT - len(near) - 1) + "\n" + near


def _verdict(row: Difference, differences: Differences) -> str:
    if row.q <= 0.05:
        return f"; not found: q passes, but |z| is below the {differences.z_threshold:.2f} that shuffling reaches"
    if row.above_null:
        return "; not found: |z| exceeds what shuffling reaches, but q is above 0.05"
    return ""


def null_line(effect: Differences, null: Differences, *, quote: Callable[[str], str]) -> str:
    """What differences of the reference against itself mean for the rows found, or '' where there are none."""
    if not null.found:
        return ""
    largest = max(abs(row.z) for row in null.found)
    weak = sum(abs(row.z) <= largest for row in effect.found)
    names = ", ".join(quote(name) for name in dict.fromkeys(row.ngram for row in null.found[:3]))
    return (
        f"the reference against itself differs too (in {names}), by chance alone: of the {len(effect.found)} rows "
        f"found between target and reference, the {weak} with |z| up to {largest:.2f} are no stronger; repeat them on "
        "fresh prompts before you rely on them"
    )


def _words(row: Difference, wording: Wording) -> str:
    counts = ", ".join(
        f"{name} {count}"
        for name, count in (
            (wording.first, _counted(row.first, row.first_n, wording.samples)),
            (wording.second, _counted(row.second, row.second_n, wording.samples)),
        )
    )
    return (
        f"{wording.quote(row.ngram)}: {counts}, log-odds {row.log_odds:+.2f} [{row.ci_low:+.2f}, {row.ci_high:+.2f}], "
        f"z {row.z:+.2f}, q {row.q:.2g}{wording.note(row)}"
    )


def _also(group: Folded, wording: Wording) -> str:
    shown = ", ".join(wording.quote(row.ngram) for row in group.more[:_ALSO_SHOWN])
    return f"; with it {shown}" if shown else ""


def _counted(count: float, total: float, samples: int) -> str:
    replies = f"{count * samples:.0f} of {total * samples:.0f}"
    return replies if samples == 1 else f"in {replies} replies over {total:.0f} prompts"
