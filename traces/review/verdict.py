"""What a run concluded and whether to believe it, for the top of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marple.traces.index_entries import verdict_of
from marple.traces.review.fields import flag, items, mapping, number, of, rows, text
from marple.traces.review.opened import Opened
from marple.traces.review.verdict_facts import Fact, facts

__all__ = ["Claim", "Verdict", "conclusion", "stated", "verdict"]

_OWN_PLACE = ("claims", "summary", "candidates")
_MARKS = {
    "replicated": "good",
    "not replicated": "bad",
    "control shows it too": "bad",
    "not re-runnable": "unsure",
}
_WORDS = {
    "solved": ("Solved", "good"),
    "missed": ("Not solved", "bad"),
    "cleared": ("Cleared", "good"),
    "false alarm": ("False alarm", "bad"),
}


@dataclass(frozen=True)
class Belief:
    """One thing that may be so, with its probability."""

    what: str
    probability: float | None
    right: bool | None = None


@dataclass(frozen=True)
class Claim:
    """A claim with what came of making its calls again."""

    number: int
    statement: str
    credence: float | None
    evidence: Sequence[str]
    mark: str
    tone: str
    """``good``, ``bad``, ``unsure``, or '' where nothing was checked."""
    reason: str
    shows: str
    """The effect that it states, in words."""


@dataclass(frozen=True)
class Verdict:
    """The top of a run's page."""

    headline: str
    credence: float | None
    word: str
    """The verdict against the truth, or how the run ended."""
    tone: str
    beliefs: Sequence[Belief]
    claims: Sequence[Claim]
    facts: Sequence[Fact]
    truth: str | None
    """None where it is not known."""
    summary: str
    other: Mapping[str, Any] = field(default_factory=dict)
    """Parts of the answer that have no place of their own, such as an intervention."""

    @property
    def statements(self) -> list[str]:
        """What the claims say."""
        return [claim.statement for claim in self.claims]

    @property
    def marks(self) -> list[tuple[str, str, int]]:
        """How many claims got each mark: mark, tone and count."""
        said = [(claim.mark, claim.tone) for claim in self.claims if claim.mark]
        return [(mark, tone, said.count((mark, tone))) for mark, tone in dict.fromkeys(said)]


def verdict(run: Opened) -> Verdict:
    """The verdict of a run, as far as it has come."""
    answer, frozen = _answer(run)
    scores = mapping(of(run.result, "scores"))
    beliefs = _beliefs(answer, _slots_right(scores))
    word, tone = _word(run, scores)
    headline, credence = _headline(answer, beliefs) or (_no_answer(run, frozen), None)
    return Verdict(
        headline=headline[:1].upper() + headline[1:],
        credence=credence,
        word=word,
        tone=tone,
        beliefs=beliefs,
        claims=_claims(answer, rows(scores.get("claims"))),
        facts=facts(scores),
        truth=_truth(run.result),
        summary=text(answer.get("summary")),
        other={key: value for key, value in answer.items() if key not in _OWN_PLACE and not _is_chance(key) and value},
    )


def conclusion(answer: Mapping[str, Any]) -> tuple[str, float | None] | None:
    """What an answer says above all, with its probability; None where it says nothing."""
    return _headline(answer, _beliefs(answer, None))


def _headline(answer: Mapping[str, Any], beliefs: Sequence[Belief]) -> tuple[str, float | None] | None:
    """The leading belief; what is handed in goes before a small chance that there was nothing to do."""
    best = max(beliefs, key=lambda one: one.probability or 0.0, default=None)
    summary = text(answer.get("summary"))
    if best is None:
        return (summary, None) if summary else None
    chance = best.probability or 0.0
    if best.what == "yes" and chance < 0.5:
        return "no", 1.0 - chance
    alone = not rows(answer.get("candidates"))
    return (summary, None) if alone and chance < 0.5 and summary else (best.what, best.probability)


def _answer(run: Opened) -> tuple[Mapping[str, Any], bool]:
    said = mapping(of(run.result, "answer"))
    if said:
        return said, True
    frozen = run.of_type("answer")
    return (mapping(frozen[-1].payload.get("answer")), True) if frozen else ({}, False)


def _no_answer(run: Opened, frozen: bool) -> str:
    if frozen:
        return "the answer has no candidates"
    if run.paused:
        return "paused before an answer"
    return {"running": "still investigating", "interrupted": "interrupted before an answer"}.get(run.state, "no answer")


def _word(run: Opened, scores: Mapping[str, Any]) -> tuple[str, str]:
    if run.state != "done":
        if run.paused:
            return ("Paused", "unsure")
        return ("Running", "live") if run.state == "running" else ("Interrupted", "unsure")
    known = verdict_of(scores)
    if known:
        return _WORDS[known]
    ended = text(of(run.result, "status")) or "ended"
    return (ended, "unsure") if ended != "submitted" else ("No known truth", "")


def _beliefs(answer: Mapping[str, Any], right: bool | None) -> list[Belief]:
    found = [Belief(_candidate(one), number(one.get("probability"))) for one in rows(answer.get("candidates"))]
    found.sort(key=lambda one: -(one.probability or 0.0))
    if found and right is not None:
        found[0] = Belief(found[0].what, found[0].probability, right)
    found += [
        Belief(key.replace("_", " "), chance)
        for key, value in answer.items()
        if _is_chance(key) and (chance := number(value)) is not None
    ]
    return found


def _is_chance(key: str) -> bool:
    return key.startswith("nothing_") or key == "yes"


def _candidate(candidate: Mapping[str, Any]) -> str:
    what = [str(value) for name, value in candidate.items() if value and name not in ("probability", "trigger", "text")]
    parts = [" ".join(what)] if what else []
    if candidate.get("trigger"):
        parts.append(f"when: {candidate['trigger']}")
    if candidate.get("text"):
        parts.append(f"“{candidate['text']}”")
    return ", ".join(parts) or "an empty candidate"


def _slots_right(scores: Mapping[str, Any]) -> bool | None:
    slots = [value for value in mapping(scores.get("slots")).values() if isinstance(value, bool)]
    return all(slots) if slots and flag(scores.get("solved")) is not None else None


def _claims(answer: Mapping[str, Any], marks: Sequence[Mapping[str, Any]]) -> list[Claim]:
    found = []
    for place, claim in enumerate(rows(answer.get("claims"))):
        mark = marks[place] if place < len(marks) else {}
        found.append(
            Claim(
                number=place + 1,
                statement=text(claim.get("statement")),
                credence=number(claim.get("credence")),
                evidence=[one for one in items(claim.get("evidence")) if isinstance(one, str)],
                mark=text(mark.get("mark")),
                tone=_MARKS.get(text(mark.get("mark")), ""),
                reason=text(mark.get("reason")),
                shows=_shows(mapping(claim.get("shows"))),
            )
        )
    return found


def _shows(said: Mapping[str, Any]) -> str:
    return f"{said.get('call')}: {stated(said)}" if said else ""


def stated(said: Mapping[str, Any]) -> str:
    """An effect in words: a share of replies with a word, or a number of the result, and its bound."""
    least, most = number(said.get("at_least")), number(said.get("at_most"))
    bound = f"at least {least:.2f}" if least is not None else f"at most {most:.2f}" if most is not None else "some"
    where = f" under “{said['condition']}”" if said.get("condition") else ""
    where += f" without “{said['without']}”" if said.get("without") else ""
    word = f"“{said['word']}”" if said.get("word") else ""
    if said.get("number"):
        return f"{said['number']}{f' of {word}' if word else ''}{where} {bound}"
    return f"{bound} of the replies{where} contain {word or 'anything'}"


def _truth(result: Mapping[str, Any] | None) -> str | None:
    truth = of(result, "truth")
    if not isinstance(truth, Mapping):
        return None
    if truth.get("nothing_hidden") is True:
        return "nothing hidden"
    slots = [f"{name} {mapping(slot).get('value')}" for name, slot in mapping(truth.get("slots")).items()]
    return ", ".join(slots) or "something hidden"
