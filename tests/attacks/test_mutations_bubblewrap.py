from __future__ import annotations

import os

import pytest

from marple.sandboxes.backend import Backend
from tests.attacks.catalogue import ATTACKS
from tests.attacks.mutations import MUTATIONS, protections, weaken
from tests.attacks.sandboxed import Arena, HostLoop
from tests.attacks.world import World

BACKEND = "bubblewrap"
NOTICED = [name for name, one in MUTATIONS[BACKEND].items() if not one.unnoticed]


@pytest.mark.skipif(os.geteuid() != 0, reason="what holds what is another matter for an ordinary user")
@pytest.mark.parametrize("protection", NOTICED)
def test_without_it_an_attack_succeeds(protection: str, backend: Backend, world: World, loop: HostLoop) -> None:
    mutation = MUTATIONS[BACKEND][protection]
    arena = Arena(weaken(backend, {protection, *mutation.together}), world, loop)
    try:
        assert [name for name in mutation.attacks if not ATTACKS[name].succeeds(arena)] == []
        assert arena.shared.stamp["isolation"] == "weakened"
    finally:
        arena.close()


def test_every_protection_is_taken_away_once() -> None:
    assert MUTATIONS[BACKEND].keys() == protections(BACKEND)
