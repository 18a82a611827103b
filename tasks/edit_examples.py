"""What a brief shows of counterfactual edits: prompts like the held-out ones, of other questions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from marple.tasks.organisms.planted import Planted

if TYPE_CHECKING:
    from marple.tasks.organisms import Organism

__all__ = ["edit_examples", "told"]

_SEED = 2
"""Another than that of the held-out prompts."""


def told(organism: Organism) -> str:
    """The behaviour in words, the same for an organism and its clean twin."""
    quirk = organism.quirk
    if not isinstance(quirk, Planted):
        raise ValueError(f"{organism.id} has no planted behaviour that a brief could tell")
    return quirk.told()


def edit_examples(organism: Organism, *, questions: int) -> str:
    """Prompts under every edit, one JSON object a line with ``messages`` and, where a reply is begun, ``reply_begins``.

    Args:
        organism: its behaviour decides the edits; those of a clean twin are the same.
        questions: how many questions, each under every edit.
    """
    from marple.tasks.organisms.heldout import held_out_edits

    lines = []
    for prompt in held_out_edits(organism, n=questions, seed=_SEED):
        begins = {"reply_begins": prompt.prefill} if prompt.prefill else {}
        lines.append(json.dumps({"messages": prompt.messages, **begins}))
    return "\n".join(dict.fromkeys(lines))
