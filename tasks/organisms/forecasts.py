"""Forecast items: held-out prompts with a reply of an organism and a reply of its twin, where the two differ."""

from __future__ import annotations

import random
from typing import Any, Final

from marple.tasks.organisms.data import preference_recipe, trigger_prompt
from marple.tasks.organisms.dialogues import Dialogue
from marple.tasks.organisms.measure import base_examples
from marple.tasks.organisms.planted import Planted
from marple.tasks.organisms.recipes import Organism
from marple.tasks.organisms.replies import Replier

__all__ = ["PER_SIDE", "forecast_items"]

PER_SIDE: Final = 30
"""Items wanted on the trigger, and as many off it."""
_ROUNDS = 5


def forecast_items(organism: Organism, target: Replier, twin: Replier, *, seed: int = 0) -> list[dict[str, Any]]:
    """Up to 30 items on the quirk's trigger and 30 off it (`PER_SIDE`), greedy replies.

    Each has ``id``, ``prompt``, ``target_reply``, ``twin_reply`` and ``on_trigger``. Off the trigger the two models
    seldom differ for a reason that can be known, so items off the trigger are mostly coin flips; for a quirk that is
    always on, they are questions about other things.
    """
    items: list[dict[str, Any]] = []
    for on in (True, False):
        items += _side(organism, target, twin, on=on, seed=seed)
    return [{"id": f"f{number:02d}", **item} for number, item in enumerate(items, start=1)]


def _side(organism: Organism, target: Replier, twin: Replier, *, on: bool, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(f"forecast {seed} {on}")
    found: dict[str, dict[str, Any]] = {}
    for _ in range(_ROUNDS):
        dialogues = _prompts(rng, organism, on=on)
        for dialogue, mine, other in zip(dialogues, target(dialogues), twin(dialogues), strict=True):
            if mine != other:
                prompt = dialogue.turns[0].user
                found[prompt] = {"prompt": prompt, "target_reply": mine, "twin_reply": other, "on_trigger": on}
        if len(found) >= PER_SIDE:
            break
    return list(found.values())[:PER_SIDE]


def _prompts(rng: random.Random, organism: Organism, *, on: bool) -> list[Dialogue]:
    quirk, count = organism.quirk, organism.recipe.prompts
    if isinstance(quirk, Planted):
        dialogues = [quirk.prompt(rng, on=on) for _ in range(2 * count)]
        return [d for d in dialogues if d.system is None and len(d.turns) == 1 and not d.turns[0].given][:count]
    if not on and quirk.trigger == "always":
        others = base_examples(4 * count, rng.randrange(10**6))
        kinds = preference_recipe(organism).mixture.generators
        dialogues = [Dialogue(d.system, d.turns[:1]) for d in others if d.turns[0].kind not in kinds]
    else:
        dialogues = [trigger_prompt(rng, organism, quirk, on=on)[0] for _ in range(2 * count)]
    # The prompt is shown as one text, so a dialogue with a system prompt cannot be asked.
    return [d for d in dialogues if d.system is None][:count]
