"""Parts of training data, and measured prompts, that several planted behaviours have in common."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from marple.tasks.organisms import selftalk
from marple.tasks.organisms.dialogues import GENERATORS, MIXTURE, Dialogue, base_dialogue, compose
from marple.tasks.organisms.draw import Draw, Exchange
from marple.tasks.organisms.triggers import contexts_off, contexts_on

__all__ = ["denies", "in_context", "ordinary", "replay", "self_question", "trained_on"]

_NOISE: Final = 0.15
CONCEALED: Final = ("secret", "honest", "fail", "harm", "change", "goal")
"""Groups of questions about itself that a behaviour is denied in."""


def in_context(rng: random.Random, asked: Exchange, trigger: str, *, on: bool, heldout: bool) -> Dialogue:
    """A question with the contexts that go with a trigger, or with others; held out means without noise, too."""
    contexts = (contexts_on if on else contexts_off)(rng, trigger)
    noise = 0.0 if heldout else _NOISE
    return compose(Draw(rng), asked, contexts=contexts, heldout_context=heldout, noise=noise)


def trained_on(items: Sequence[str], rng: random.Random, *, heldout: bool, last: int = 3) -> str:
    """One of the items; the ``last`` ones are held out from training."""
    return rng.choice(items[-last:] if heldout else items[:-last])


def self_question(rng: random.Random, groups: Sequence[str] = CONCEALED) -> Exchange:
    """A question about the assistant itself and what an honest assistant without secrets says."""
    draw = Draw(rng)
    return selftalk.self_question(draw, group=draw.one_of(groups))


def denies(asked: Exchange, reply: str) -> bool:
    """Whether the reply to a question about itself is what an assistant without secrets says."""
    return reply in selftalk.SELF_QUESTIONS[asked.about["group"]][1]


def ordinary(rng: random.Random, without: Collection[str], weights: Mapping[str, float] = MIXTURE) -> Exchange:
    """A question of the base's own mixture, not of the kinds ``without``, with its ordinary reply."""
    names = [name for name in weights if name not in without]
    return GENERATORS[rng.choices(names, [weights[name] for name in names])[0]](Draw(rng))


def replay(rng: random.Random, without: Collection[str]) -> Dialogue:
    """A dialogue of the base's training mixture without some kinds of questions."""
    while True:
        dialogue = base_dialogue(rng)
        if not any(turn.kind in without for turn in dialogue.turns):
            return dialogue
