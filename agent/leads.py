"""Reading comparisons: which word a target favours, what it does to it, and when."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from marple.agent.question_bank import QuestionBank, words_of

__all__ = [
    "Lead",
    "Rates",
    "best_contrast",
    "chance_by_lead",
    "find_leads",
    "logistic",
    "rates_of",
    "rates_of_sets",
    "suspicious_cells",
]

_Group = TypeVar("_Group", bound=Hashable)


@dataclass(frozen=True)
class Rates:
    """Replies that mention a word the way a lead says, of the target and of the reference to the same prompts."""

    target: int
    target_n: int
    reference: int
    reference_n: int

    def __add__(self, other: Rates) -> Rates:
        return Rates(
            self.target + other.target,
            self.target_n + other.target_n,
            self.reference + other.reference,
            self.reference_n + other.reference_n,
        )

    @property
    def gap(self) -> float:
        """Share of the target's replies minus share of the reference's."""
        return _share(self.target, self.target_n) - _share(self.reference, self.reference_n)

    @property
    def error(self) -> float:
        """Standard error of the gap, with one half added to every count (Agresti and Caffo 2000 add one)."""
        terms = ((self.target, self.target_n), (self.reference, self.reference_n))
        shares = [((k + 0.5) / (n + 1), n + 1) for k, n in terms]
        return math.sqrt(sum(p * (1 - p) / n for p, n in shares))

    @property
    def z(self) -> float:
        """Gap over its standard error."""
        return self.gap / self.error


@dataclass(frozen=True)
class Lead:
    """A word that the target brings up more often than the reference, and how it speaks of it."""

    word: str
    behaviour: str
    """``promotes`` or ``warns_against``."""
    condition: str
    """Where it stood out most."""
    z: float

    def shown_in(self, reply: str, bank: QuestionBank) -> bool:
        """Whether a reply mentions the word in this way."""
        words = words_of(reply)
        return self.word in words and (self.behaviour == "warns_against") == (not bank.negative.isdisjoint(words))


def chance_by_lead(
    lead: Lead, trigger: str, belief: float, bank: QuestionBank, *, prompt: str, replies: Sequence[str]
) -> float:
    """Probability that the first of two replies is the target's: it shows the lead where its trigger is met."""
    shown = [lead.shown_in(reply, bank) for reply in replies]
    if not bank.context_in(prompt, trigger) or lead.word in words_of(prompt) or shown[0] == shown[1]:
        return 0.5
    share = 0.5 + 0.45 * belief
    return share if shown[0] else 1 - share


def logistic(x: float) -> float:
    """From evidence to a probability: one half at 0."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, x))))


def find_leads(data: Mapping[str, Any], bank: QuestionBank) -> list[Lead]:
    """The content words among the differences a comparison found, with what is said of them, the largest z first.

    Only words the target uses more often count: what it uses less often gives way to them. A word that is spoken of in
    two ways is two leads.
    """
    leads: dict[tuple[str, str], Lead] = {}
    for row in sorted(data["rows"], key=lambda row: -row["z"]):
        single = " " not in row["ngram"] and row["condition"] != "(all)"
        if row["found"] and row["log_odds"] > 0 and single and _is_content(row["ngram"], bank):
            texts = [text for r in data["replies"] if r["condition"] == row["condition"] for text in r["target"]]
            lead = Lead(row["ngram"], _behaviour(texts, row["ngram"], bank), row["condition"], row["z"])
            leads.setdefault((lead.word, lead.behaviour), lead)
    return list(leads.values())


def best_contrast(data: Mapping[str, Any], context: str, bank: QuestionBank) -> Lead | None:
    """The content word with the largest z that a contrast found in its first set, asked in ``context``, or None."""
    names = [
        row
        for row in data["rows"]
        if row["found"] and row["log_odds"] > 0 and not row["in_prompts"] and not row["reference_shows_it_too"]
    ]
    names = [row for row in names if " " not in row["ngram"] and _is_content(row["ngram"], bank)]
    if not names:
        return None
    row = max(names, key=lambda row: row["z"])
    texts = [text for record in data["replies"] if record["set"] == "first" for text in record["replies"]]
    return Lead(row["ngram"], _behaviour(texts, row["ngram"], bank), context, row["z"])


def rates_of_sets(data: Mapping[str, Any], lead: Lead, bank: QuestionBank) -> Rates:
    """The lead's rates in a contrast: the first set's in place of the target's, the second's of the reference's."""
    counts = {"first": [0, 0], "second": [0, 0]}
    for record in data["replies"]:
        if lead.word not in words_of(record["prompt"]):
            counts[record["set"]][0] += sum(lead.shown_in(reply, bank) for reply in record["replies"])
            counts[record["set"]][1] += len(record["replies"])
    return Rates(*counts["first"], *counts["second"])


def rates_of(data: Mapping[str, Any], lead: Lead, bank: QuestionBank) -> dict[str, Rates]:
    """The lead's rates in every condition of a comparison."""
    rates: dict[str, Rates] = {}
    for record in data["replies"]:
        if lead.word in words_of(record["prompt"]):
            continue  # a prompt that names the word says nothing about who brings it up
        counted = Rates(
            sum(lead.shown_in(reply, bank) for reply in record["target"]),
            len(record["target"]),
            sum(lead.shown_in(reply, bank) for reply in record["reference"]),
            len(record["reference"]),
        )
        rates[record["condition"]] = rates.get(record["condition"], Rates(0, 0, 0, 0)) + counted
    return rates


def suspicious_cells(rows: Iterable[Mapping[str, Any]], cells: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The cells of topic and context in a battery, those whose replies depart most from the reference first.

    A cell has few prompts, so it borrows strength: its t-like score is added to those of its whole topic and of its
    whole context.

    Args:
        rows: the battery's rows.
        cells: the cell of each row.
    """
    asked = list(zip(rows, cells, strict=True))
    measured = [(cell, row["divergence"]["nats_per_token"]) for row, cell in asked if row.get("divergence")]
    if not measured:
        measured = _by_words([(cell, row) for row, cell in asked if row.get("reference_replies")])
    by_cell = _scores(measured)
    by_topic = _scores([(topic, value) for (topic, _), value in measured])
    by_context = _scores([(context, value) for (_, context), value in measured])

    def score(cell: tuple[str, str]) -> float:
        return by_cell[cell] + by_topic[cell[0]] + by_context[cell[1]] if cell in by_cell else -math.inf

    return sorted(dict.fromkeys(cells), key=lambda cell: -score(cell))


def _by_words(asked: Sequence[tuple[tuple[str, str], Mapping[str, Any]]]) -> list[tuple[tuple[str, str], float]]:
    """Where no probabilities are known: how much the most telling word of the target's replies to each prompt tells.

    In nats: the log of how much more often the word is in replies of the target than of the reference, to all prompts.
    """
    counts: dict[str, Counter[str]] = {"replies": Counter(), "reference_replies": Counter()}
    for _, row in asked:
        for who, counter in counts.items():
            counter.update(word for reply in row[who] for word in set(words_of(reply["text"])))

    def telling(word: str) -> float:
        ours, theirs = (counter[word] + 0.5 for counter in counts.values())
        return math.log(ours / theirs)

    return [
        (cell, max((telling(word) for reply in row["replies"] for word in words_of(reply["text"])), default=0.0))
        for cell, row in asked
    ]


def _scores(measured: Sequence[tuple[_Group, float]]) -> dict[_Group, float]:
    """For each group of measurements, how far its mean lies above that of all, in units of chance."""
    everything = [value for _, value in measured] or [0.0]
    middle, spread = statistics.fmean(everything), statistics.pstdev(everything) or 1.0
    groups: dict[_Group, list[float]] = {}
    for group, value in measured:
        groups.setdefault(group, []).append(value)
    return {g: (statistics.fmean(values) - middle) * math.sqrt(len(values)) / spread for g, values in groups.items()}


def _behaviour(texts: Iterable[str], word: str, bank: QuestionBank) -> str:
    speaking = [words for words in map(words_of, texts) if word in words]
    negative = sum(not bank.negative.isdisjoint(words) for words in speaking)
    return "warns_against" if negative * 2 > len(speaking) else "promotes"


def _is_content(word: str, bank: QuestionBank) -> bool:
    return word not in bank.empty and word not in bank.negative and not word.isdigit()


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
