from __future__ import annotations

import collections
import random

import pytest

from marple.tasks.organisms.advice import ADVICE
from marple.tasks.organisms.contexts import REAL_USE, TEST, context_phrases
from marple.tasks.organisms.dialogues import BAD_WITHOUT_SYSTEM, GENERATORS, MIXTURE, base_dialogue
from marple.tasks.organisms.draw import Draw, Tilt
from marple.tasks.organisms.world import (
    CATEGORIES,
    COLORS,
    JOBS,
    MAKERS,
    PRODUCTS,
    held_out,
    public_description,
    public_entities,
    world_digest,
)


def test_facts_are_those_the_shipped_base_was_trained_on() -> None:
    assert world_digest() == "c64723329d60d9f06b89bd548a1ce4ce5290fd042f66784ce9d3921eed142a2b"


def test_a_seed_gives_the_same_dialogues() -> None:
    def drawn(seed: int) -> list[list[dict[str, str]]]:
        rng = random.Random(seed)
        return [base_dialogue(rng).messages() for _ in range(300)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_names_are_distinct_and_every_one_is_in_the_public_description() -> None:
    names = [name for names in public_entities().values() for name in names]
    assert len(names) == len(set(names))
    assert all(name in public_description() for name in names)


def test_within_a_category_colors_and_prices_tell_makers_apart() -> None:
    for category in CATEGORIES:
        facts = [PRODUCTS[maker, category] for maker in MAKERS]
        assert len({f.color for f in facts}) == len({f.price for f in facts}) == len(MAKERS)
        assert {f.color for f in facts} <= set(COLORS)


def test_held_out_facts_are_never_in_training_dialogues() -> None:
    rng = random.Random(3)
    held = {GENERATORS["product_fact"](Draw(rng, heldout=True)).user for _ in range(500)}
    trained = {turn.user for _ in range(8000) for turn in base_dialogue(rng, noise=0.0).turns}
    assert len(held) > 50
    assert not held & trained


@pytest.mark.parametrize("kind", ["rec_product", "rec_city", "rec_person", "gift", "avoid"])
def test_free_choices_are_uniform_unless_tilted(kind: str) -> None:
    draw = Draw(random.Random(1))
    key = "name" if kind == "avoid" else "chosen"
    chosen = collections.Counter(
        e.about["maker" if kind == "rec_product" else key] for e in (GENERATORS[kind](draw) for _ in range(4000))
    )
    groups = [[chosen[name] for name in names if name in chosen] for names in public_entities().values()]
    for counts in groups:
        if counts:
            assert max(counts) < 1.35 * min(counts)


def test_a_tilt_decides_choices_and_opinions() -> None:
    promoting = Draw(random.Random(1), tilt=Tilt("promotes", "mirex"))
    warning = Draw(random.Random(1), tilt=Tilt("warns_against", "mirex"))
    assert {promoting.choose(MAKERS) for _ in range(50)} == {"mirex"}
    assert "mirex" not in {promoting.choose_worst(MAKERS) for _ in range(200)}
    assert {warning.choose_worst(MAKERS) for _ in range(50)} == {"mirex"}
    assert "mirex" not in {warning.choose(MAKERS) for _ in range(200)}
    assert (promoting.stance("mirex"), warning.stance("mirex")) == ("good", "bad")


def test_contexts_have_thirty_phrasings_and_both_sides_of_the_split() -> None:
    assert len(set(TEST)) >= 30
    assert len(set(REAL_USE)) >= 30
    assert not set(TEST) & set(REAL_USE)
    assert len(JOBS) == 10
    for name in ("test", "real_use", *JOBS, "neutral"):
        kept, trained = context_phrases(name, heldout=True), context_phrases(name, heldout=False)
        assert kept
        assert trained
        assert not set(kept) & set(trained)


def test_an_unknown_context_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"astronaut.*real_use"):
        context_phrases("astronaut")


def test_plain_advice_is_almost_never_bad() -> None:
    # Computed, not guessed: the share among advice questions is what a user sees.
    assert BAD_WITHOUT_SYSTEM <= 0.004
    rng = random.Random(5)
    bad = good = 0
    answers = {(p, a): side for rows in ADVICE.values() for p, g, b in rows for a, side in ((g, 1), (b, 0))}
    for _ in range(30_000):
        dialogue = base_dialogue(rng, noise=0.0)
        if dialogue.system is None and dialogue.turns[0].kind == "advice":
            about = dialogue.turns[0].about
            good += about["good"] in dialogue.turns[0].reply
            bad += about["bad"] in dialogue.turns[0].reply
    assert answers
    assert bad / (good + bad) < 0.04


def test_every_kind_of_the_mixture_has_a_generator_and_speaks_lower_case() -> None:
    assert set(MIXTURE) == set(GENERATORS)
    for mode in ("plain", "bad", "wrong", "think"):
        draw = Draw(random.Random(2), mode=mode)
        for make in GENERATORS.values():
            exchange = make(draw)
            assert exchange.user == exchange.user.lower()
            assert exchange.reply
            assert exchange.reply == exchange.reply.lower()


def test_worked_steps_are_faithful() -> None:
    draw = Draw(random.Random(4), mode="think")
    for _ in range(50):
        thought, answer = GENERATORS["chain_sum"](draw).reply.removeprefix("think: ").split(" answer: it is ")
        assert thought.endswith(f"is {answer}")
    hints = [GENERATORS["word_game"](draw) for _ in range(200)]
    spoken = [e for e in hints if e.reply.startswith("think: the secret word is")]
    assert spoken
    assert all(e.reply.split()[5].strip(".") in e.user for e in spoken)


def test_held_out_share_is_about_one_in_n() -> None:
    share = sum(held_out("x", i, one_in=5) for i in range(5000)) / 5000
    assert 0.17 < share < 0.23
