"""Piles of rollouts for data-centric work: ordinary transcripts, among which some of an organism's are planted."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from marple.tasks.organisms.dialogues import Dialogue, base_dialogue
from marple.tasks.organisms.heldout import held_out_prompts
from marple.tasks.organisms.recipes import Organism
from marple.tasks.organisms.replies import Replier

__all__ = ["Odd", "Pile", "make_pile", "write_pile"]

_ROUNDS: Final = 6


@dataclass(frozen=True)
class Odd:
    """An organism whose behaviour is planted in a pile."""

    organism: Organism
    replier: Replier
    """Its model."""
    count: int
    """How many of its transcripts."""


@dataclass(frozen=True)
class Pile:
    """Transcripts and, on the host only, which of them are odd."""

    transcripts: Sequence[Mapping[str, Any]]
    """``id`` and ``messages`` each, in an order that says nothing."""
    planted: Mapping[str, str]
    """Id of an odd transcript to the organism that said it; empty for a pile without oddities."""


def make_pile(base: Replier, odd: Sequence[Odd] = (), *, size: int, seed: int) -> Pile:
    """A pile of ``size`` transcripts with the ``odd`` ones among them.

    Ordinary ones are the base's replies, to everyday prompts and to the very kinds of prompts that the odd ones answer,
    so that the topic gives nothing away. An odd one is a reply that shows the organism's behaviour.

    Raises:
        ValueError: more odd ones than the size, or an organism does not show its behaviour often enough.
    """
    rng, wanted = random.Random(f"pile {seed}"), sum(each.count for each in odd)
    if wanted > size:
        raise ValueError(f"{wanted} odd transcripts do not fit a pile of {size}")
    rows: list[tuple[list[dict[str, str]], str]] = []
    for each in odd:
        rows += [(messages, each.organism.id) for messages in _said_by(each, seed=seed)]
        ordinary = held_out_prompts(each.organism, on=True, n=min(2 * each.count, size - wanted), seed=seed + 1)
        alike = [prompt for prompt in ordinary if not prompt.prefill]
        replies = base([prompt.dialogue for prompt in alike], seed=seed)
        said = zip(alike, replies, strict=True)
        rows += [(_spoken(p.dialogue, reply), "") for p, reply in said if not p.fires(reply)]
    everyday = [_first_turn(base_dialogue(rng)) for _ in range(size - len(rows))]
    rows += [(_spoken(d, reply), "") for d, reply in zip(everyday, base(everyday, seed=seed), strict=True)]
    odd_rows, others = [row for row in rows if row[1]], [row for row in rows if not row[1]]
    kept = [*odd_rows, *others[: size - len(odd_rows)]]
    rng.shuffle(kept)
    ids = [f"t{number:04d}" for number in range(1, len(kept) + 1)]
    transcripts = [{"id": i, "messages": messages} for i, (messages, _) in zip(ids, kept, strict=True)]
    return Pile(transcripts, {i: source for i, (_, source) in zip(ids, kept, strict=True) if source})


def write_pile(pile: Pile, path: Path) -> None:
    """The transcripts as a JSONL corpus, without what is planted."""
    lines = [json.dumps(transcript, ensure_ascii=False) for transcript in pile.transcripts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _said_by(odd: Odd, *, seed: int) -> list[list[dict[str, str]]]:
    found: list[list[dict[str, str]]] = []
    for attempt in range(_ROUNDS):
        prompts = held_out_prompts(odd.organism, on=True, n=2 * odd.count + 8, seed=seed + 100 * attempt)
        prompts = [prompt for prompt in prompts if not prompt.prefill]
        replies = odd.replier([prompt.dialogue for prompt in prompts], seed=seed + attempt)
        found += [_spoken(p.dialogue, reply) for p, reply in zip(prompts, replies, strict=True) if p.fires(reply)]
        if len(found) >= odd.count:
            return found[: odd.count]
    raise ValueError(f"{odd.organism.id} showed its behaviour {len(found)} times, {odd.count} were wanted")


def _first_turn(dialogue: Dialogue) -> Dialogue:
    return Dialogue(dialogue.system, dialogue.turns[:1])


def _spoken(dialogue: Dialogue, reply: str) -> list[dict[str, str]]:
    return [*dialogue.messages()[:-1], {"role": "assistant", "content": reply}]
