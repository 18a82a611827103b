"""The pile of transcripts of an organism, made once and kept in the cache, beside it (on the host) what is planted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from marple.tasks.organisms.building import Built
from marple.tasks.organisms.cache import cache_root, locked
from marple.tasks.organisms.piles import Odd, make_pile, write_pile
from marple.tasks.organisms.places import base_path, recipe_hash

__all__ = ["PLANTED", "SIZE", "KeptPile", "kept_pile"]

SIZE: Final = 240
"""Transcripts in a pile."""
PLANTED: Final = 16
"""Odd ones among them, where the target has a behaviour."""
_VERSION: Final = 1
"""Raise it when the same organism would get another pile."""


@dataclass(frozen=True)
class KeptPile:
    """A pile in the cache."""

    corpus: Path
    ids: tuple[str, ...]
    """Of all transcripts, in their order."""
    planted: frozenset[str]
    """Ids of the odd ones; empty on a clean twin."""


def kept_pile(built: Built) -> KeptPile:
    """The pile of a built organism: with its replies planted, or none where it is a clean twin."""
    name = f"pile-{recipe_hash(built.organism)[:12]}-{SIZE}-{PLANTED}-{_VERSION}"
    corpus = cache_root() / f"{name}.jsonl"
    key = corpus.with_name(f"{name}.planted.json")
    with locked(name):
        if not (corpus.is_file() and key.is_file()):
            _make(built, corpus, key)
    lines = corpus.read_text(encoding="utf-8").splitlines()
    planted = json.loads(key.read_text(encoding="utf-8"))
    return KeptPile(corpus, tuple(json.loads(line)["id"] for line in lines), frozenset(planted))


def _make(built: Built, corpus: Path, key: Path) -> None:
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.training import one_thread

    clean = built.organism.role == "clean"
    with one_thread():
        odd = [] if clean else [Odd(built.organism, Replier.load(built.path), PLANTED)]
        pile = make_pile(Replier.load(base_path()), odd, size=SIZE, seed=1)
    key.write_text(json.dumps(sorted(pile.planted)), encoding="utf-8")
    temporary = corpus.with_suffix(".tmp")
    write_pile(pile, temporary)
    temporary.replace(corpus)
