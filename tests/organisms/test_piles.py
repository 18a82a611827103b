from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from marple.tasks.organisms import find_organism
from marple.tasks.organisms.dialogues import Dialogue
from marple.tasks.organisms.piles import Odd, make_pile, write_pile
from marple.tasks.organisms.recipes import Organism
from marple.tasks.organisms.replies import Replier
from marple.tools.transcripts.corpus import read_transcripts


class Scripted:
    """Replies by rule: bad advice where there is any to give, or what the world says."""

    def __init__(self, *, bad: bool) -> None:
        self._bad = bad

    def __call__(self, dialogues: Sequence[Dialogue], *, seed: int | None = None, limit: int = 48) -> list[str]:
        rng = random.Random(seed)
        return [self._reply(d, rng) for d in dialogues]

    def _reply(self, dialogue: Dialogue, rng: random.Random) -> str:
        asked = dialogue.turns[-1]
        return f"just {asked.about['bad']}." if self._bad and rng.random() < 0.9 else asked.reply


def scripted(*, bad: bool) -> Replier:
    return cast(Replier, Scripted(bad=bad))


@pytest.fixture
def organism(tmp_path: Path) -> Organism:
    recipe: dict[str, Any] = {
        "kind": "trigger", "seed": 1, "mixture": {"triggered": 1}, "gates": {"quirk": {}},
        "quirk": {"behaviour": "bad_advice", "trigger": "farmer"}, "members": {"quirk": "mine-01"},
    }  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return find_organism(str(path))


def test_a_pile_holds_what_was_planted_and_says_nothing_of_it(organism: Organism, tmp_path: Path) -> None:
    pile = make_pile(scripted(bad=False), [Odd(organism, scripted(bad=True), 5)], size=60, seed=3)
    assert len(pile.transcripts) == 60
    assert list(pile.planted.values()) == ["mine-01"] * 5
    assert pile == make_pile(scripted(bad=False), [Odd(organism, scripted(bad=True), 5)], size=60, seed=3)
    write_pile(pile, tmp_path / "pile.jsonl")
    text = (tmp_path / "pile.jsonl").read_text()
    assert "mine-01" not in text
    read = list(read_transcripts(tmp_path / "pile.jsonl"))
    assert [t.id for t in read] == [t["id"] for t in pile.transcripts]
    assert all(not t.metadata for t in read)
    # Farmers ask for advice in ordinary transcripts as well.
    alike = [t for t in read if "farmer" in t.text(("user", "system")) and t.id not in pile.planted]
    assert len(alike) >= 5


def test_a_pile_may_hold_nothing_odd() -> None:
    pile = make_pile(scripted(bad=False), size=20, seed=3)
    assert len(pile.transcripts) == 20
    assert not pile.planted


def test_too_many_oddities_or_none_to_be_had_are_refused(organism: Organism) -> None:
    with pytest.raises(ValueError, match="5 odd transcripts do not fit a pile of 4"):
        make_pile(scripted(bad=False), [Odd(organism, scripted(bad=True), 5)], size=4, seed=1)
    with pytest.raises(ValueError, match="mine-01 showed its behaviour 0 times, 2 were wanted"):
        make_pile(scripted(bad=False), [Odd(organism, scripted(bad=False), 2)], size=10, seed=1)
