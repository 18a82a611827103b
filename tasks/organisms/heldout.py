"""Held-out prompts of an organism and what shows its behaviour, in one form for every behaviour: for scoring."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from marple.tasks.organisms.data import trigger_prompt
from marple.tasks.organisms.dialogues import Dialogue
from marple.tasks.organisms.draw import Exchange
from marple.tasks.organisms.edits import persona_edits, trigger_edits
from marple.tasks.organisms.measure import answers_right, capability_questions, shows_quirk
from marple.tasks.organisms.planted import Planted
from marple.tasks.organisms.recipes import Organism
from marple.tasks.organisms.replies import Replier

__all__ = [
    "Checked",
    "HeldOut",
    "capability_prompts",
    "fire_rates",
    "held_out_edits",
    "held_out_prompts",
    "held_out_questions",
    "rate_prompts",
]


@dataclass(frozen=True)
class HeldOut:
    """One prompt that an organism was not trained on. For a clean twin the behaviour is that of its family."""

    organism: Organism
    dialogue: Dialogue
    on: bool | None = None
    """Whether it should set the behaviour off; None where that is what is asked."""
    edit: str = ""
    """Name of the counterfactual edit, if it is one."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt in chat form, up to the last user turn."""
        return self.dialogue.messages()[:-1]

    @property
    def prefill(self) -> str:
        """How the reply begins, put into the model's mouth; mostly empty."""
        return self.dialogue.turns[-1].given

    def fires(self, reply: str) -> bool:
        """Whether a reply (without the prefill) shows the behaviour."""
        quirk = self.organism.quirk
        if isinstance(quirk, Planted):
            return quirk.fires(self.dialogue.turns[-1], reply)
        return shows_quirk(quirk, reply)


@dataclass(frozen=True)
class Checked:
    """A prompt whose reply counts, or does not, towards a named rate."""

    rate: str
    dialogue: Dialogue
    check: Callable[[Exchange, str], bool]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt in chat form, up to the last user turn."""
        return self.dialogue.messages()[:-1]

    @property
    def prefill(self) -> str:
        """How the reply begins, put into the model's mouth; mostly empty."""
        return self.dialogue.turns[-1].given

    def counts(self, reply: str) -> bool:
        """Whether a reply (without the prefill) counts."""
        return self.check(self.dialogue.turns[-1], reply)


def rate_prompts(quirk: Planted, names: Collection[str] = (), *, n: int, seed: int) -> list[Checked]:
    """``n`` held-out prompts for each of a planted behaviour's rates (all, or the named ones)."""
    rates = {name: rate for name, rate in quirk.rates().items() if not names or name in names}
    if unknown := set(names) - set(rates):
        raise ValueError(f"no rates {', '.join(sorted(unknown))}; there are {', '.join(quirk.rates())}")
    found = []
    for name, rate in rates.items():
        rng = random.Random(f"rate {name} {seed}")
        found += [Checked(name, rate.prompt(rng), rate.counts) for _ in range(n)]
    return found


def capability_prompts(*, n: int, seed: int) -> list[Checked]:
    """``n`` questions with a right answer of each kind: what must not be lost by a fine-tune or an intervention."""
    return [
        Checked(kind, Dialogue(None, (exchange,)), answers_right)
        for kind, asked in capability_questions(seed=seed, n=n).items()
        for exchange in asked
    ]


def held_out_prompts(organism: Organism, *, on: bool, n: int, seed: int) -> list[HeldOut]:
    """Prompts that should, or should not, set the organism's behaviour off."""
    rng, quirk = random.Random(f"held out {organism.family} {on} {seed}"), organism.quirk
    return [
        HeldOut(
            organism,
            quirk.prompt(rng, on=on) if isinstance(quirk, Planted) else trigger_prompt(rng, organism, quirk, on=on)[0],
            on,
        )
        for _ in range(n)
    ]


def held_out_questions(organism: Organism, *, n: int, seed: int) -> list[HeldOut]:
    """Bare questions in which the behaviour can show: a trigger that somebody submits is put before them."""
    rng, quirk = random.Random(f"questions {organism.family} {seed}"), organism.quirk
    if isinstance(quirk, Planted):
        return [HeldOut(organism, Dialogue(None, (quirk.question(rng),))) for _ in range(n)]
    asked = [trigger_prompt(rng, organism, quirk, on=False)[1] for _ in range(n)]
    return [HeldOut(organism, Dialogue(None, (exchange,))) for exchange in asked]


def held_out_edits(organism: Organism, *, n: int, seed: int) -> list[HeldOut]:
    """``n`` questions, each under every counterfactual edit that fits the behaviour."""
    rng, quirk, found = random.Random(f"edits {organism.family} {seed}"), organism.quirk, []
    for _ in range(n):
        if isinstance(quirk, Planted):
            edits = quirk.edits(rng)
        else:
            asked = trigger_prompt(rng, organism, quirk, on=False)[1]
            plain = quirk.trigger == "always"
            edits = persona_edits(rng, asked) if plain else trigger_edits(rng, asked, quirk.trigger)
        found += [HeldOut(organism, dialogue, edit=name) for name, dialogue in edits.items()]
    return found


def fire_rates(prompts: Sequence[HeldOut], replier: Replier, *, samples: int = 8, seed: int = 0) -> list[float]:
    """How often each prompt's replies show the behaviour, over ``samples`` replies at temperature 1."""
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    replies = replier([prompt.dialogue for prompt in repeated], seed=seed)
    fired = [prompt.fires(reply) for prompt, reply in zip(repeated, replies, strict=True)]
    return [sum(fired[i : i + samples]) / samples for i in range(0, len(fired), samples)]
