"""Without a sandbox the attacks succeed: what holds them up elsewhere is the sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.attacks.attack import Attack
from tests.attacks.catalogue import ATTACKS
from tests.attacks.sandboxed import Arena, HostLoop
from tests.attacks.unconfined import CarelessBubblewrap, Unconfined
from tests.attacks.world import World


@pytest.fixture(scope="module")
def arenas(world: World, loop: HostLoop) -> Iterator[dict[str, Arena]]:
    made = {one.name: Arena(one, world, loop) for one in (Unconfined(), CarelessBubblewrap())}
    yield made
    for arena in made.values():
        arena.close()


@pytest.mark.parametrize(
    "attack", [one for one in ATTACKS.values() if not one.control.startswith("none")], ids=lambda a: a.name
)
def test_the_attack_succeeds_without_a_sandbox(attack: Attack, arenas: dict[str, Arena]) -> None:
    if attack.root_only and os.geteuid() != 0:
        pytest.skip("an ordinary user's rights alone prevent it")
    assert attack.succeeds(arenas[attack.control])
