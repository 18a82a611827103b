from __future__ import annotations

from tests.attacks.attack import BACKENDS
from tests.attacks.catalogue import ATTACKS, THEMES, of_theme
from tests.attacks.mutations import MUTATIONS
from tests.attacks.table import BEGIN, END, PAGE, table


def test_the_page_has_the_attacks_of_the_suite_with_the_outcomes_that_it_asserts() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.split(BEGIN)[1].split(END)[0] == table(), "run: python -m tests.attacks.table"


def test_every_attack_is_in_the_table_once() -> None:
    attacks, _, _ = table().partition("What was taken away")
    rows = [line.split("`")[1] for line in attacks.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(ATTACKS)
    assert sum(len(of_theme(theme)) for theme in THEMES) == len(ATTACKS)


def test_reasons_name_backends_there_are() -> None:
    for attack in ATTACKS.values():
        assert {*attack.leaks, *attack.apart} <= set(BACKENDS)
        assert not attack.leaks.keys() & attack.apart.keys()


def test_no_protection_is_proven_by_what_succeeds_anyway() -> None:
    for backend, removed in MUTATIONS.items():
        for one in removed.values():
            assert one.attacks or one.unnoticed
            assert not any(backend in {**ATTACKS[name].leaks, **ATTACKS[name].apart} for name in one.attacks)
