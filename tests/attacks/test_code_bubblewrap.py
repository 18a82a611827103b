from __future__ import annotations

from collections.abc import Iterator

import pytest

from marple.sandboxes.backend import Backend
from tests.attacks.catalogue import ATTACKS, CODE, of_theme
from tests.attacks.coding import CodeArena
from tests.attacks.sandboxed import HostLoop
from tests.attacks.world import World

BACKEND = "bubblewrap"


@pytest.fixture(scope="module")
def code_arena(backend: Backend, world: World, loop: HostLoop) -> Iterator[CodeArena]:
    made = CodeArena(backend, world, loop)
    yield made
    made.close()


@pytest.mark.parametrize("attack", of_theme(CODE))
def test_the_attack_ends_as_documented(attack: str, code_arena: CodeArena) -> None:
    expected = ATTACKS[attack]
    assert expected.succeeds(code_arena) == expected.leaks_on(BACKEND), expected.tries
