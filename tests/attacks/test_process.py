from __future__ import annotations

import pytest

from tests.attacks.catalogue import ATTACKS, against
from tests.attacks.honest import contradictions
from tests.attacks.sandboxed import Arena

BACKEND = "process"


@pytest.mark.parametrize("attack", against(BACKEND))
def test_the_attack_ends_as_documented(attack: str, arena: Arena) -> None:
    expected = ATTACKS[attack]
    assert expected.succeeds(arena) == expected.leaks_on(BACKEND), expected.tries


def test_the_stamp_says_what_the_kernel_says(arena: Arena) -> None:
    sandbox = arena.shared
    processes = sandbox.pids()
    assert processes
    assert [contradictions(sandbox.stamp, one) for one in processes] == [{}] * len(processes)
