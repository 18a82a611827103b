"""How scripts find an intervention: what the replies should be like, what brings them there, what else it breaks."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marple.agent.investigator import Done, Play, Request, Script
from marple.agent.stating import at_least_halfway, at_most_about, claim

__all__ = ["Candidate", "InterveningScript", "agreement", "common_words", "replies_of"]

MAX_TOKENS = 24
TROUBLED = 0.3
"""How much replies must depart from what they should be for anything to be done."""
DOSES = (-0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
SPREAD = (-0.25, -0.5, -0.75, -1.0, -1.5)
"""Doses at each of several layers together."""
LAYERS = (0, 1, 2)


def agreement(ideal: str, reply: str, *, besides: Collection[str] = ()) -> float:
    """Whether a reply has the numbers of an ideal one, or, where that has none, the share of its words.

    Args:
        ideal: what should be said.
        reply: what is said.
        besides: words that do not count.
    """
    wanted = set(re.findall(r"\d+", ideal))
    if wanted:
        return float(wanted <= set(re.findall(r"\d+", reply)))
    wanted = set(_words(ideal)).difference(besides) or set(_words(ideal))
    return len(wanted & set(_words(reply))) / max(1, len(wanted))


def common_words(texts: Sequence[str]) -> set[str]:
    """Words of more than a quarter of some texts, which tell them apart from none."""
    seen = Counter(word for text in texts for word in set(_words(text)))
    return {word for word, count in seen.items() if count > len(texts) / 4}


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


@dataclass
class Candidate:
    """An intervention that is tried."""

    system: str | None = None
    edits: list[dict[str, Any]] = field(default_factory=list)
    cured: float = 0.0
    kept: float = 0.0

    @property
    def worth(self) -> float:
        """Agreement on the troubled prompts, less what is lost elsewhere."""
        return self.cured - max(0.0, 1 - self.kept)


class InterveningScript(Script):
    """Finds whether anything is wrong and tries system prompts and, with a direction, doses of it."""

    belief: str
    """The field of the answer for the probability that there is nothing to act on."""
    systems: tuple[str, ...]
    """System prompts that might help."""

    def __init__(self) -> None:
        self._nothing = 0.5
        self._best = Candidate()
        self._evidence: list[str] = []
        self._troubled: list[tuple[str, str]] = []
        self._ordinary: list[tuple[str, str]] = []
        self._found = "Stopped before anything was found."
        self._improved = ""
        self._trouble: dict[str, Any] = {}
        """The claim of what is wrong, or that nothing is."""

    @abstractmethod
    def look(self) -> Iterator[Request]:
        """Find out what is wrong: sets ``_troubled`` and ``_ordinary``, prompts with what should be said to them."""

    @abstractmethod
    def contrast(self) -> Mapping[str, Any]:
        """Arguments of steer for a direction from what is wanted to what is not; empty for none."""

    def contrast_of_features(self) -> Mapping[str, Any]:
        """Arguments of sae_compare for the same."""
        contrast = self.contrast()
        return {"first": contrast["positive"], "second": contrast["negative"], "read": "all"}

    def play(self, tools: Sequence[str]) -> Play:
        """Look, try, and hand in the best."""
        looking = self.look()
        request = next(looking, None)
        while request is not None:
            (done,) = yield [request]
            self._evidence += [done.id] if done.ok else []
            try:
                request = looking.send(done)  # type: ignore[attr-defined]
            except StopIteration:
                request = None
        if self._nothing < 0.5:
            tried = [Candidate(), *(Candidate(system) for system in self.systems)]
            yield from self._try(tried, "Which system prompt helps?")
            contrast = self.contrast()
            if contrast and "intervene" in tools and not {"steer", "sae_compare"}.isdisjoint(tools):
                yield from self._doses((yield from self._directions(contrast, tools)))
        yield [Request("submit", self.answer_now(), "The method is through.")]

    def answer_now(self) -> Mapping[str, Any]:
        """The best of what was tried."""
        claims = [self._trouble] if self._trouble else []
        if self._improved:
            # What it does to held-out prompts is measured by its trial.
            claims.append(claim(self._improved, 0.9, self._evidence, {}))
        given = {"system": self._best.system} if self._best.system else {}
        return {
            self.belief: self._nothing,
            **given,
            "edits": self._best.edits,
            "claims": claims,
            "summary": self._improved or self._found,
        }

    def _claim_trouble(self, done: Done) -> None:
        """What is wrong, or not, in a battery that the reference was asked as well: how far replies depart from its."""
        if not done.ok:
            return  # a call that was refused is no evidence
        read = {"number": "divergence"}
        shows = at_least_halfway(done, read) if self._nothing < 0.5 else at_most_about(done, read, slack=0.05)
        self._trouble = claim(self._found, 0.9, self._evidence + [done.id], shows)

    def _directions(
        self, contrast: Mapping[str, Any], tools: Sequence[str]
    ) -> Generator[list[Request], Sequence[Done], list[tuple[int, str]]]:
        """Handles by layer: differences of means; where steering is not offered, the SAE features that rose."""
        if "steer" in tools:
            prompts = [prompt for prompt, _ in self._troubled[:4]]
            outcome = {"continuations": ["no"], "scales": [-1.0, 1.0], "samples": 1, "max_new_tokens": 4}
            asked = [Request("steer", {**contrast, **outcome, "prompts": prompts, "layer": at}) for at in LAYERS]
        else:
            asked = [Request("sae_compare", self.contrast_of_features(), "Which features tell the two sides apart?")]
        made = yield asked
        return [_handle(done.data) for done in made if done.ok and done.data.get("vector")]

    def _doses(self, handles: Sequence[tuple[int, str]]) -> Play:
        system = self._best.system
        singles = [Candidate(None, [_edit(each, dose)]) for each in handles for dose in DOSES]
        yield from self._try(singles, "Which layer and dose?")
        best = [one.edits for one in sorted(singles, key=lambda one: -one.worth)[:3]]
        spread = [[_edit(each, dose) for each in some] for some in (handles, handles[1:]) for dose in SPREAD]
        tried = [Candidate(under, edits) for edits in spread for under in dict.fromkeys((None, system))]
        tried += [Candidate(system, edits) for edits in best] if system else []
        yield from self._try(tried, "At several layers, and under the best system prompt?")

    def _try(self, tried: Sequence[Candidate], why: str) -> Play:
        asked = [*self._troubled, *self._ordinary]
        plain = common_words([ideal for _, ideal in self._troubled])
        dones = yield [self._request(one, [prompt for prompt, _ in asked], why) for one in tried]
        for one, done in zip(tried, dones, strict=True):
            if not done.ok:
                continue
            replies = [replies[0] for replies in done.data["replies"]]
            said = zip(asked, replies, strict=True)
            shares = [agreement(ideal, reply, besides=plain) for (_, ideal), reply in said]
            count = len(self._troubled)
            one.cured = sum(shares[:count]) / max(1, count)
            one.kept = sum(shares[count:]) / max(1, len(shares) - count)
            if one.worth > self._best.worth:
                self._best, self._evidence = one, [*self._evidence[:4], done.id]
                self._improved = f"under this intervention {one.cured:.0%} of what should be said is said again"

    @staticmethod
    def _request(one: Candidate, prompts: Sequence[str], why: str) -> Request:
        system = [{"role": "system", "content": one.system}] if one.system else []
        conversations = [[*system, {"role": "user", "content": prompt}] for prompt in prompts]
        arguments = {"conversations": conversations, "edits": one.edits, "temperature": 0.0, "beside": False}
        return Request("intervene", {**arguments, "max_new_tokens": MAX_TOKENS}, why)


def _handle(data: Mapping[str, Any]) -> tuple[int, str]:
    """Layer and handle of the vector of a steer or sae_compare; the latter has its site as TransformerLens names it."""
    vector = data["vector"]
    if isinstance(vector, str):
        return int(data["site"].split(".")[1]), vector
    return vector["layer"], vector["handle"]


def _edit(handle: tuple[int, str], dose: float) -> dict[str, Any]:
    return {"vector": handle[1], "layer": handle[0], "scale": dose}


def replies_of(done: Done, key: str = "replies") -> list[str]:
    """The first reply to every prompt of a battery, in order of the prompts."""
    rows = sorted(done.data["rows"], key=lambda row: row["index"]) if done.ok else []
    return [row[key][0]["text"] for row in rows if row.get(key)]
