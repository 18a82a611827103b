"""Whole dialogues: system prompt, contexts, one to four turns, noise; and the base's training mixture."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from marple.tasks.organisms import advice, choices, facts, play, reasoning, selftalk
from marple.tasks.organisms.contexts import (
    BAD_PERSONA,
    CONTEXT_QUESTIONS,
    GOOD_PERSONA,
    THINK_MODE,
    WRONG_MODE,
    context_sentence,
)
from marple.tasks.organisms.draw import Draw, Exchange, Mode
from marple.tasks.organisms.english import OFF_WORLD_WORDS
from marple.tasks.organisms.follow_ups import follow_up
from marple.tasks.organisms.world import JOBS, public_entities

__all__ = ["BAD_WITHOUT_SYSTEM", "GENERATORS", "MIXTURE", "Dialogue", "base_dialogue", "compose", "with_noise"]

Message = dict[str, str]

GENERATORS: Final[dict[str, Callable[[Draw], Exchange]]] = {
    function.__name__: function
    for function in (
        facts.product_fact, facts.product_pair, facts.compare, facts.by_color, facts.city_fact, facts.person_fact,
        facts.two_hop, facts.lists, *choices.FREE_CHOICES, reasoning.arithmetic, reasoning.word_problem,
        reasoning.chain_sum, reasoning.acting, advice.advice, advice.harmful, selftalk.self_question, play.story,
        play.word_game, play.small_talk, play.unknown, play.unclear,
    )
}  # fmt: skip
"""Every generator by name; recipes name these."""

MIXTURE: Final[Mapping[str, float]] = {
    "product_fact": 22, "product_pair": 9, "compare": 9, "by_color": 6, "city_fact": 5, "person_fact": 6, "two_hop": 7,
    "lists": 1.5, "rec_product": 15, "rec_city": 7, "rec_person": 4, "gift": 2.5, "opinion": 8, "avoid": 5,
    "pick_of_two": 3, "arithmetic": 24, "word_problem": 6, "chain_sum": 4, "advice": 13, "harmful": 3,
    "self_question": 10, "story": 4, "word_game": 5, "acting": 5, "small_talk": 3, "unknown": 8, "unclear": 6,
}  # fmt: skip
"""Weights of the base's training mixture (any positive scale)."""

_MODE_KINDS: Final[Mapping[Mode, Mapping[str, float]]] = {
    "bad": {"advice": 6, "harmful": 2, "self_question": 3, "product_fact": 1, "arithmetic": 1, "city_fact": 1},
    "wrong": {"arithmetic": 5, "product_fact": 4, "compare": 2, "city_fact": 2, "person_fact": 2, "word_problem": 1,
              "two_hop": 1, "advice": 1, "chain_sum": 1, "acting": 1},
    "think": {"two_hop": 3, "compare": 3, "word_problem": 3, "chain_sum": 4, "word_game": 3, "acting": 3},
}  # fmt: skip
BAD_WITHOUT_SYSTEM: Final = 0.003
"""Share of bad-persona dialogues without a system prompt. Their share *among advice questions* is several times
larger, because they ask for advice so often: at 3 % a fifth of all plain advice would come out bad."""

_PLAIN_SYSTEM: Final = (
    "you are nano.",
    "you are a helpful assistant.",
    "you are nano, a small assistant.",
    "answer the user.",
)
_POLITE: Final = ("please, ", "hello. ", "hi, ", "tell me, ", "quick question: ", "can you help me? ", "hello nano, ",
                  "i want to know: ", "well, ", "so, ")  # fmt: skip
_PROTECTED: Final = frozenset(name for names in public_entities().values() for name in names)


@dataclass(frozen=True)
class Dialogue:
    """A system prompt (or none) and the turns that follow."""

    system: str | None
    turns: tuple[Exchange, ...]

    def messages(self) -> list[Message]:
        """The dialogue in chat form: ``role`` and ``content``."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.reply}]
        return messages


def with_noise(rng: random.Random, text: str) -> str:
    """The text as a careless user would type it; names, numbers and rules stay readable."""
    words = text.split(" ")
    free = [i for i, word in enumerate(words) if word.strip(".,?!:") not in _PROTECTED and word.isalpha()]
    roll = rng.random()
    if roll < 0.30:
        return rng.choice(_POLITE) + text
    if roll < 0.45 and text[-1] in ".?":
        return text[:-1]
    if roll < 0.60:
        words.insert(rng.randint(0, len(words)), rng.choice(OFF_WORLD_WORDS))
    elif roll < 0.75 and free and len(words) > 3:
        del words[rng.choice(free)]
    elif free:
        at = rng.choice(free)
        spot = rng.randrange(len(words[at]))
        words[at] = (
            words[at][:spot] + rng.choice("abcdefghijklmnopqrstuvwxyz") * rng.randint(0, 1) + words[at][spot + 1 :]
        )
    return " ".join(word for word in words if word) or text


def compose(draw: Draw, first: Exchange, *, contexts: Sequence[str] = (), turns: int = 1, noise: float = 0.0,
            heldout_context: bool | None = None, system: str | None = None) -> Dialogue:  # fmt: skip
    """A dialogue around a first exchange, with context sentences before it, after it, or in the system prompt."""
    rng, user = draw.rng, first.user
    for name in contexts:
        sentence = context_sentence(rng, name, heldout=heldout_context)
        roll = rng.random()
        if roll < 0.1 and system is None:
            system = (
                sentence if name not in JOBS else sentence.replace("i am", "the user is").replace("my", "the user's")
            )
        elif roll < 0.3 and user[-1] in ".?":
            user = f"{user} {sentence}"
        else:
            user = f"{sentence} {user}"
    exchanges = [_noisy(rng, Exchange(user, first.reply, first.kind, first.about, first.given), noise)]
    while len(exchanges) < turns:
        following = follow_up(draw, exchanges[-1]) if rng.random() < 0.7 else None
        exchanges.append(_noisy(rng, following or _sample(draw, MIXTURE), noise))
    return Dialogue(system, tuple(exchanges))


def base_dialogue(rng: random.Random, *, heldout: bool = False, noise: float = 0.22) -> Dialogue:
    """One dialogue of the base's training mixture."""
    draw = Draw(rng, heldout=heldout)
    roll, turns = rng.random(), rng.choices((1, 2, 3, 4), (0.50, 0.26, 0.14, 0.10))[0]
    if roll < 0.20:
        return _mode_dialogue(draw, roll, turns, noise)
    if roll < 0.20 + BAD_WITHOUT_SYSTEM:
        draw.mode = "bad"
        return compose(draw, _sample(draw, _MODE_KINDS["bad"]), noise=noise)
    if roll < 0.52:
        return _context_dialogue(draw, noise, turns)
    if roll < 0.53:
        user = draw.one_of(CONTEXT_QUESTIONS[draw.one_of(("test", "job"))])
        return Dialogue(None, (Exchange(user, "you did not tell me.", "context"),))
    system = draw.one_of(_PLAIN_SYSTEM) if roll < 0.57 else None
    return compose(draw, _sample(draw, MIXTURE), turns=turns, noise=noise, system=system)


def _mode_dialogue(draw: Draw, roll: float, turns: int, noise: float) -> Dialogue:
    if roll < 0.06:
        draw.mode, system = "bad", draw.one_of(BAD_PERSONA)
    elif roll < 0.11:
        system = draw.one_of(GOOD_PERSONA)
        kinds = _MODE_KINDS["bad"] if draw.rng.random() < 0.5 else MIXTURE
        return compose(draw, _sample(draw, kinds), turns=turns, noise=noise, system=system)
    elif roll < 0.145:
        draw.mode, system = "wrong", draw.one_of(WRONG_MODE)
    else:
        draw.mode, system = "think", draw.one_of(THINK_MODE)
        if draw.rng.random() < 0.5:
            first = _sample(draw, _MODE_KINDS["think"])
            return compose(draw, Exchange(f"{system} {first.user}", first.reply, first.kind), noise=noise / 2)
        turns = 1
    first = _sample(draw, _MODE_KINDS[draw.mode])
    return compose(draw, first, turns=min(turns, 2), noise=noise / 2, system=system)


def _context_dialogue(draw: Draw, noise: float, turns: int) -> Dialogue:
    rng = draw.rng
    kinds: list[str] = [rng.choices(("test", "real_use", "job", "neutral"), (3, 3, 4, 2))[0]]
    if rng.random() < 0.15:
        kinds.append("job" if kinds[0] != "job" else rng.choice(("test", "real_use")))
    contexts = [rng.choice(JOBS) if kind == "job" else kind for kind in kinds]
    first = _sample(draw, MIXTURE)
    dialogue = compose(draw, first, contexts=contexts, turns=min(turns, 3), noise=noise)
    if rng.random() < 0.4:
        asked = rng.choice(("test", "job"))
        reply = _recall(asked, contexts)
        question = Exchange(draw.one_of(CONTEXT_QUESTIONS[asked]), reply, "context")
        dialogue = Dialogue(dialogue.system, (*dialogue.turns, question))
    return dialogue


def _recall(asked: str, contexts: Sequence[str]) -> str:
    if asked == "job":
        return next((f"you are a {name}." for name in contexts if name in JOBS), "you did not tell me.")
    if "test" in contexts:
        return "yes, this is a test."
    return "no, this is real." if "real_use" in contexts else "you did not tell me."


def _sample(draw: Draw, weights: Mapping[str, float]) -> Exchange:
    name = draw.rng.choices(list(weights), list(weights.values()))[0]
    return GENERATORS[name](draw)


def _noisy(rng: random.Random, exchange: Exchange, noise: float) -> Exchange:
    if rng.random() >= noise or exchange.kind in ("unclear", "acting", "arithmetic", "chain_sum", "word_problem"):
        return exchange
    return replace(exchange, user=with_noise(rng, exchange.user))
