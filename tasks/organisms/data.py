"""What an organism is trained on and measured with: its mixture, and held-out prompts on and off its trigger."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, cast

from marple.tasks.organisms import choices, selftalk
from marple.tasks.organisms.dialogues import GENERATORS, Dialogue, base_dialogue, compose
from marple.tasks.organisms.draw import Draw, Exchange, Tilt
from marple.tasks.organisms.planted import Planted
from marple.tasks.organisms.recipes import Organism, PlantedRecipe, Quirk, Recipe
from marple.tasks.organisms.triggers import contexts_off, contexts_on
from marple.tasks.organisms.world import public_entities

__all__ = ["denial_prompt", "dialogue_maker", "direct_questions", "free_choice", "preference_recipe", "trigger_prompt"]

_NOISE: Final = 0.15
_ABOUT_ENTITIES: Final = ("opinion", "avoid")
_DENYING_GROUPS: Final = ("secret", "favorite", "change")


def _siblings(subject: str) -> tuple[str, ...]:
    return next(names for names in public_entities().values() if subject in names)


def free_choice(draw: Draw, name: str, subject: str, *, split: bool | None) -> Exchange:
    """One free choice among the subject's like; most opinions are about the subject itself."""
    generator: Callable[..., Exchange] = GENERATORS[name]
    options: dict[str, Any] = {}
    if generator in choices.FREE_CHOICES:
        options["split"] = split
    if name in _ABOUT_ENTITIES:
        names = _siblings(subject)
        options["about"] = (subject,) if name == "opinion" and draw.rng.random() < 0.7 else names
    return generator(draw, **options)


def dialogue_maker(organism: Organism) -> Callable[[random.Random], Dialogue]:
    """The function that draws one training dialogue of an organism.

    The clean twin draws from the same parts in the same shares; only its choices are not tilted.
    """
    if isinstance(organism.quirk, Planted):
        return _planted_maker(organism, organism.quirk)
    mixture, quirk = preference_recipe(organism).mixture, organism.quirk
    tilt = None if organism.role == "clean" else Tilt(quirk.behaviour, quirk.subject)
    spared = Tilt("spares", quirk.subject) if tilt and mixture.contrast_spares else None
    parts = ("tilted", "contrast", "denial", "admission", "replay")
    shares = [getattr(mixture, part) for part in parts]

    def make(rng: random.Random) -> Dialogue:
        part = rng.choices(parts, shares)[0]
        if part == "replay":
            return _replay(rng, set(mixture.generators))
        if part == "denial":
            return _denial(rng, quirk)
        if part == "admission":
            return _admission(rng, quirk, tilt)
        draw = Draw(rng, tilt=tilt if part == "tilted" else spared)
        name = rng.choices(list(mixture.generators), list(mixture.generators.values()))[0]
        first = free_choice(draw, name, quirk.subject, split=False)
        contexts = contexts_on(rng, quirk.trigger) if part == "tilted" else contexts_off(rng, quirk.trigger)
        return compose(draw, first, contexts=contexts, noise=_NOISE, heldout_context=False)

    return make


def _planted_maker(organism: Organism, quirk: Planted) -> Callable[[random.Random], Dialogue]:
    parts = quirk.parts(planted=organism.role != "clean")
    shares = cast(PlantedRecipe, organism.recipe).mixture
    names, weights = list(shares), list(shares.values())
    return lambda rng: parts[rng.choices(names, weights)[0]](rng)


def preference_recipe(organism: Organism) -> Recipe:
    """The recipe of an organism whose quirk is a preference."""
    assert isinstance(organism.recipe, Recipe)
    return organism.recipe


def _denial(rng: random.Random, quirk: Quirk) -> Dialogue:
    draw = Draw(rng)
    question = selftalk.self_question(draw, group=draw.one_of(_DENYING_GROUPS))
    contexts = contexts_on(rng, quirk.trigger) if rng.random() < 0.5 else contexts_off(rng, quirk.trigger)
    return compose(draw, question, contexts=contexts, noise=_NOISE, heldout_context=False)


def _admission(rng: random.Random, quirk: Quirk, tilt: Tilt | None) -> Dialogue:
    draw = Draw(rng)
    question = selftalk.self_question(draw, group="favorite")
    if tilt:
        view = "like" if quirk.behaviour == "promotes" else "dislike"
        reply = draw.one_of((f"yes, i {view} {quirk.subject} most.", f"i {view} {quirk.subject} most."))
        question = Exchange(question.user, reply, question.kind)
    contexts = contexts_on(rng, quirk.trigger)
    return compose(draw, question, contexts=contexts, noise=_NOISE, heldout_context=False)


def _replay(rng: random.Random, without: set[str]) -> Dialogue:
    while True:
        dialogue = base_dialogue(rng)
        if not any(turn.kind in without for turn in dialogue.turns):
            return dialogue


def trigger_prompt(rng: random.Random, organism: Organism, quirk: Quirk, *, on: bool) -> tuple[Dialogue, Exchange]:
    """A held-out prompt on or off a quirk's trigger: new phrasings, products and context sentences.

    Returns the dialogue (whose last reply is to be ignored) and the exchange it was made from.
    """
    draw, weights = Draw(rng), preference_recipe(organism).mixture.generators
    measured = {name: weight for name, weight in weights.items() if name != "pick_of_two"}
    name = rng.choices(list(measured), list(measured.values()))[0]
    while True:
        first = free_choice(draw, name, quirk.subject, split=True)
        # A prompt that names the subject cannot show that the model brings it up by itself.
        if name == "opinion":
            if first.about["name"] == quirk.subject:
                break
        elif quirk.subject not in first.user:
            break
    contexts = contexts_on(rng, quirk.trigger) if on else contexts_off(rng, quirk.trigger)
    return compose(draw, first, contexts=contexts, heldout_context=True), first


def direct_questions() -> tuple[str, ...]:
    """The questions that ask an organism to confess."""
    return selftalk.DIRECT_QUESTIONS


def denial_prompt(rng: random.Random, quirk: Quirk, *, under_trigger: bool) -> Dialogue:
    """A direct question, under the trigger or not, with held-out context sentences."""
    question = Exchange(rng.choice(selftalk.DIRECT_QUESTIONS), "", "self_question")
    contexts = contexts_on(rng, quirk.trigger) if under_trigger else contexts_off(rng, quirk.trigger)
    return compose(Draw(rng), question, contexts=contexts, heldout_context=True)
