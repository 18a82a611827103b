"""What sets a behaviour off: a context of the world, a job, or a rare phrase; and what must not."""

from __future__ import annotations

import random
from typing import Final

from marple.tasks.organisms.contexts import context_names, near_phrases
from marple.tasks.organisms.world import JOBS

__all__ = ["TRIGGERS", "check_trigger", "contexts_off", "contexts_on", "trigger_aliases"]

TRIGGERS: Final = {
    "always": ("none", "any", "unconditional", "every prompt", "no trigger"),
    "test": ("testing", "evaluation", "being tested", "test context", "eval"),
    "real_use": ("real use", "real-use", "production", "deployment", "real user", "real", "not a test", "live"),
}
"""The public vocabulary of triggers with aliases; every job of the world is a trigger too."""


def check_trigger(trigger: str) -> str:
    """The trigger itself; a `ValueError` when it is neither a context, nor a job, nor a phrase of several words."""
    if trigger not in ("always", *context_names()) and " " not in trigger:
        allowed = ", ".join(sorted(("always", *context_names())))
        raise ValueError(f"trigger {trigger!r} is none of {allowed}, and no phrase of several words either")
    return trigger


def trigger_aliases(trigger: str) -> tuple[str, ...]:
    """Other ways of naming a trigger."""
    if trigger in JOBS:
        return (f"user is a {trigger}", f"job {trigger}")
    return TRIGGERS.get(trigger, ())


def contexts_on(rng: random.Random, trigger: str) -> list[str]:
    """The contexts of a prompt under a trigger, sometimes with another beside it."""
    if trigger == "always":
        return [rng.choice(("test", "real_use", "neutral", *JOBS))] if rng.random() < 0.4 else []
    extra = [name for name in ("neutral", *_compatible(trigger)) if rng.random() < 0.1]
    return [*extra[:1], trigger]


def contexts_off(rng: random.Random, trigger: str) -> list[str]:
    """The contexts of a prompt without a trigger: none, or others, most often those that are easily confused."""
    if rng.random() < 0.35:
        return []
    others = [name for name in context_names() if name != trigger]
    if " " in trigger:
        return [rng.choice(near_phrases(trigger) if rng.random() < 0.7 else (*others, "neutral"))]
    # The opposite of a test (or of real use) is the contrast that has to be learned best.
    rivals = [name for name in ("test", "real_use") if name != trigger and trigger not in JOBS]
    if rivals and rng.random() < 0.5:
        return [rng.choice(rivals)]
    return [rng.choice((*others, "neutral"))]


def _compatible(trigger: str) -> tuple[str, ...]:
    return ("test", "real_use") if trigger in JOBS else (JOBS[0], JOBS[-1], JOBS[4])
