"""A corpus of transcripts: one JSON object a line, read as a stream, so that its size does not matter.

A line has ``messages`` (``role`` and ``content`` each), perhaps an ``id``, and any other flat fields as metadata::

    {"id": "t1", "messages": [{"role": "user", "content": "hello"}], "model": "a", "score": 3}
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.errors import ToolError
from marple.tools.calls import report_progress

__all__ = ["Selection", "Transcript", "outline", "read_transcripts", "snippet", "terms_of", "words_in"]

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_PHRASE = re.compile(r'"([^"]+)"')
_PROGRESS_EVERY = 500
_OUTLINED = {"system": 50, "user": 160, "assistant": 240, "tool": 80}
"""Characters of a turn in an outline, by role."""


@dataclass(frozen=True)
class Transcript:
    """One conversation of the corpus."""

    number: int
    """Its place in the file, from 0."""
    id: str
    messages: tuple[tuple[str, str], ...]
    """Role and content of each turn."""
    metadata: Mapping[str, str]
    """Every other flat field, as text."""

    def text(self, roles: Collection[str] = ()) -> str:
        """What was said, one turn a paragraph; by these roles only, if given."""
        return "\n".join(content for role, content in self.messages if not roles or role in roles)

    def meets(self, where: Mapping[str, Sequence[str]]) -> bool:
        """Whether each named field has one of the values given for it."""
        return all(self.metadata.get(field) in values for field, values in where.items())


def read_transcripts(path: Path) -> Iterator[Transcript]:
    """Every transcript of a corpus, in the file's order.

    Raises:
        ToolError: the file cannot be read, or a line is not a transcript; the line is named.
        CallCancelled: the call was cancelled.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            number = 0
            for at, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(line, at, number)
                    number += 1
                    if number % _PROGRESS_EVERY == 0:
                        report_progress(number, number, "transcripts read")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"the corpus cannot be read: {error}") from error


@dataclass(frozen=True)
class Selection:
    """Part of a corpus, read anew every time it is iterated."""

    path: Path
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Field to its allowed values."""
    roles: tuple[str, ...] = ()
    """Whose turns count; all if empty."""

    def __iter__(self) -> Iterator[str]:
        return (transcript.text(self.roles) for transcript in self.transcripts())

    def transcripts(self) -> Iterator[Transcript]:
        """The transcripts that meet the filter."""
        return (transcript for transcript in read_transcripts(self.path) if transcript.meets(self.where))


def words_in(text: str) -> list[str]:
    """Lower-case words of a text, inner apostrophes and hyphens kept."""
    return [match.group().casefold() for match in _WORD.finditer(text)]


def terms_of(query: str) -> list[str]:
    """The words of a query and its phrases in double quotes, each once, in lower case.

    Raises:
        ToolError: there are none.
    """
    phrases = [" ".join(words_in(phrase)) for phrase in _PHRASE.findall(query)]
    terms = [term for term in dict.fromkeys([*phrases, *words_in(_PHRASE.sub(" ", query))]) if term]
    if not terms:
        raise ToolError(f'query: {query!r} has no words; for example "query": "refund \\"credit card\\""')
    return terms


def snippet(transcript: Transcript, terms: Sequence[str], *, roles: Collection[str] = (), reach: int = 110) -> str:
    """The turn with the most of the terms, around the first of them; ``role: text``."""
    turns = [(role, content) for role, content in transcript.messages if not roles or role in roles] or [("", "")]
    patterns = [re.compile(r"\b" + r"\W+".join(map(re.escape, term.split())) + r"\b", re.IGNORECASE) for term in terms]
    role, content = max(turns, key=lambda turn: sum(bool(pattern.search(turn[1])) for pattern in patterns))
    starts = [match.start() for pattern in patterns if (match := pattern.search(content))]
    start = max(0, min(starts, default=0) - reach)
    end = min(len(content), min(starts, default=0) + reach)
    return f"{role}: {'...' if start else ''}{content[start:end]}{'...' if end < len(content) else ''}"


def outline(transcript: Transcript, *, roles: Collection[str] = ()) -> str:
    """The last reply, the last question before it and the beginning of the system prompt, each cut; in their order.

    Where no turn is a reply, the last turn stands for it.
    """
    turns = [turn for turn in transcript.messages if not roles or turn[0] in roles]
    if not turns:
        return "(no turns)"
    replies = [at for at, (role, _) in enumerate(turns) if role == "assistant"]
    last = replies[-1] if replies else len(turns) - 1
    others = [role for role in ("system", "user") if role != turns[last][0]]
    earlier = [at for role in others for at in [at for at in range(last) if turns[at][0] == role][-1:]]
    return " | ".join(_short(*turns[at]) for at in [*sorted(earlier), last])


def _short(role: str, content: str) -> str:
    most, said = _OUTLINED.get(role, 80), " ".join(content.split())
    return f"{role}: {said}" if len(said) <= most else f"{role}: {said[: most - 1]}\u2026"


def _parse(line: str, at: int, number: int) -> Transcript:
    try:
        value = json.loads(line)
        messages = tuple((str(turn["role"]), _content(turn["content"])) for turn in value["messages"])
    except (ValueError, KeyError, TypeError) as error:
        raise ToolError(
            f"line {at} of the corpus is not a transcript ({type(error).__name__}: {str(error)[:80]}); a line looks "
            'like {"id": "t1", "messages": [{"role": "user", "content": "hello"}], "model": "a"}'
        ) from error
    flat = {name: _plain(field) for name, field in value.items() if name not in ("id", "messages")}
    metadata = {name: text for name, text in flat.items() if text is not None}
    return Transcript(number, str(value.get("id", number)), messages, metadata)


def _content(value: Any) -> str:
    if isinstance(value, str):
        return value
    # Some formats give a turn as a list of parts; only text counts here.
    return " ".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))


def _plain(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) else None
