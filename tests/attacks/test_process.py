from __future__ import annotations

import pytest

from tests.attacks.catalogue import ATTACKS, against
from tests.attacks.sandboxed import Arena

BACKEND = "process"


@pytest.mark.parametrize("attack", against(BACKEND))
def test_the_attack_ends_as_documented(attack: str, arena: Arena) -> None:
    expected = ATTACKS[attack]
    assert expected.succeeds(arena) == (BACKEND in expected.leaks), expected.tries
