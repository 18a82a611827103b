"""Keys and values known from before: found when they are right, never when they are not, within their bound."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.tools.engine.interventions import Intervention
from marple.tools.engine.prefixes import Prefix, PrefixCache, edit_key, first_edited
from marple.tools.engine.requests import Capture, Request, Sampling
from marple.tools.engine.sites import Site
from tests.engine.comparing import assert_same
from tests.engine.reference import touches
from tests.engine.small import LAYERS, engine_on, small_llama, vector
from tests.engine.strategies import interventions, requests

PROFILE = settings.get_profile("engine")
MODEL = small_llama()
CACHING = engine_on(MODEL, result_bytes=0)
PLAIN = engine_on(MODEL, result_bytes=0, prefix_bytes=0)
STEM = tuple(at % 40 + 2 for at in range(40))
SITE = Site(1, "resid_pre")


def prefix(tokens: tuple[int, ...], *, key: object = 0, size: int = 4) -> Prefix:
    stored = [(torch.zeros(1, len(tokens), size), torch.zeros(1, len(tokens), size))]
    return Prefix(key, tokens, stored, torch.zeros(size))


@settings(PROFILE, max_examples=25)
@given(first=st.lists(requests(), min_size=1, max_size=3), tail=st.lists(st.integers(2, 47), max_size=4))
def test_a_hit_equals_a_miss(first: list[Request], tail: list[int]) -> None:
    CACHING.forget()
    longer = [replace(request, prompt=(*request.prompt, *tail)) for request in first if not per_position(request)]
    for queue in (first, longer, first):
        for found, expected in zip(CACHING.run(queue), PLAIN.run(queue), strict=True):
            assert_same(found, expected)


def per_position(request: Request) -> bool:
    return any(edit.positions is not None for edit in request.interventions)


def reused(first: Request, second: Request) -> int:
    """How many tokens of the second come from the first; both must be right."""
    CACHING.forget()
    CACHING.run([first])
    before = CACHING.work.prefix_tokens_reused
    assert_same(CACHING.run([second])[0], PLAIN.run([second])[0])
    return CACHING.work.prefix_tokens_reused - before


def sample(*edits: Intervention, prompt: tuple[int, ...] = STEM, seed: int = 0) -> Request:
    return Request(prompt, sampling=Sampling(3, 1.0, seed=seed), interventions=edits)


STEERED = Intervention(SITE, vector(1))
LATE = Intervention(SITE, vector(1), positions=(-1,))
SPOKEN = Intervention(SITE, vector(1), phases=("generation",))


@pytest.mark.parametrize(
    ("first", "second", "known"),
    [
        (sample(), sample(seed=1), 40),
        (sample(), sample(prompt=(*STEM, 7, 8)), 40),
        (sample(), sample(prompt=(*STEM[:20], 7, 8)), 20),
        (sample(), sample(prompt=STEM[:20]), 19),
        (sample(), Request((*STEM, 7), logits=True), 40),
        (sample(), Request(STEM, (5, 6), logprobs=True), 39),
        (sample(), Request((*STEM, 7), captures=(Capture(SITE, (-1,)),)), 40),
        (sample(), Request((*STEM, 7), captures=(Capture(SITE, (30,)),)), 30),
        (sample(), Request((*STEM, 7), captures=(Capture(SITE, "all"),)), 0),
        (sample(STEERED), sample(STEERED, seed=1), 40),
        (sample(STEERED), sample(STEERED, prompt=(*STEM, 7, 8)), 40),
        (sample(SPOKEN), sample(replace(SPOKEN, scale=3.0)), 40),
        (sample(SPOKEN), sample(), 40),
        (sample(), sample(LATE), 39),
        (sample(), sample(STEERED), 0),
        (sample(STEERED), sample(), 0),
        (sample(STEERED), sample(replace(STEERED, scale=1.5)), 0),
        (sample(STEERED), sample(replace(STEERED, op="norm_add")), 0),
        (sample(STEERED), sample(replace(STEERED, vector=vector(2))), 0),
        (sample(STEERED), sample(replace(STEERED, site=Site(0, "mlp_out"))), 0),
        (sample(STEERED), sample(replace(STEERED, exclude_tokens=(2,))), 0),
        (sample(STEERED), sample(STEERED, replace(STEERED, scale=-1.0)), 0),
        (sample(LATE), sample(LATE, prompt=(*STEM, 7, 8)), 0),
    ],
)
def test_what_is_known_is_used_and_nothing_else(first: Request, second: Request, known: int) -> None:
    assert reused(first, second) == known


def test_the_order_of_edits_belongs_to_the_key() -> None:
    one, other = Intervention(SITE, vector(1), "clamp", 2.0), Intervention(SITE, vector(2), "norm_add")
    assert reused(sample(one, other), sample(other, one)) == 0


@settings(PROFILE, max_examples=60)
@given(data=st.data(), prompt=st.lists(st.integers(2, 30), min_size=1, max_size=12).map(tuple))
def test_the_first_edited_token(data: st.DataObject, prompt: tuple[int, ...]) -> None:
    edits = tuple(data.draw(st.lists(interventions(len(prompt)), max_size=3)))
    touched = [at for at, token in enumerate(prompt) if any(touches(edit, at, token, len(prompt)) for edit in edits)]
    assert first_edited(Request(prompt, interventions=edits)) == min([*touched, len(prompt)])


def test_the_key_knows_adapter_and_prompt_edits_only() -> None:
    plain = edit_key(Request(STEM))
    assert edit_key(Request(STEM, adapted=False)) != plain
    assert edit_key(Request(STEM, interventions=(SPOKEN,))) == plain
    assert edit_key(Request(STEM, interventions=(STEERED,))) != plain
    # Where an edit counts from the prompt's end, the prompt's length decides what it touches.
    keys = {edit_key(Request(STEM[:length], interventions=(LATE,))) for length in (30, 40)}
    assert len(keys) == 2


# ------------------------------------------------------------------------------- the cache alone


def test_the_longest_beginning_is_found_by_blocks() -> None:
    cache = PrefixCache(1 << 20)
    cache.add(prefix(STEM))
    for asked, limit, expected in [
        (STEM, 40, 40),
        (STEM, 39, 39),
        ((*STEM, 5), 41, 40),
        ((*STEM[:33], 1, 1, 1), 36, 33),
        (STEM[:16], 16, 16),
        (STEM[:15], 15, None),
        ((1, *STEM), 41, None),
    ]:
        found = cache.longest(0, asked, limit)
        assert (found and found[1]) == expected
    assert cache.longest(1, STEM, 40) is None
    assert cache.whole(0, STEM[:16]) is None
    assert cache.whole(0, STEM) is not None


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    rows = [tuple([at] * 32) for at in range(6)]
    one = prefix(rows[0])
    cache = PrefixCache(3 * one.bytes)
    for row in rows[:3]:
        cache.add(prefix(row))
    cache.longest(0, rows[0], 32)
    cache.whole(0, rows[1])
    cache.add(prefix(rows[3]))
    assert cache.bytes <= 3 * one.bytes
    assert [cache.longest(0, row, 32) is not None for row in rows[:4]] == [True, True, False, True]
    cache.clear()
    assert cache.bytes == 0
    assert cache.longest(0, rows[3], 32) is None


def test_a_prefix_larger_than_the_bound_is_not_kept() -> None:
    cache = PrefixCache(100)
    cache.add(prefix(STEM))
    assert cache.bytes == 0
    assert cache.longest(0, STEM, 40) is None


def test_the_same_prefix_twice_counts_once() -> None:
    cache = PrefixCache(1 << 20)
    cache.add(prefix(STEM))
    held = cache.bytes
    cache.add(prefix(STEM))
    assert cache.bytes == held


@settings(PROFILE, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "longest", "whole"]),
            st.integers(0, 1),
            st.lists(st.integers(0, 1), min_size=1, max_size=3),
        ),
        max_size=40,
    )
)
def test_the_cache_finds_nothing_wrong_whatever_happens(steps: list[tuple[str, int, list[int]]]) -> None:
    cache = PrefixCache(6 * prefix((0,) * 16).bytes)
    for what, key, blocks in steps:
        tokens = tuple(token for block in blocks for token in [block] * 16)
        if what == "add":
            cache.add(prefix(tokens, key=key))
            assert cache.whole(key, tokens) is not None
        elif what == "whole":
            entry = cache.whole(key, tokens)
            assert entry is None or (entry.key, entry.tokens) == (key, tokens)
        elif (found := cache.longest(key, tokens, len(tokens))) is not None:
            assert found[0].key == key
            assert found[0].tokens[: found[1]] == tokens[: found[1]]
            assert 16 <= found[1] <= len(tokens)
        assert cache.bytes <= 6 * prefix((0,) * 16).bytes


def test_a_kept_prefix_does_not_keep_its_whole_batch() -> None:
    cache = PrefixCache(1 << 20)
    batch = torch.zeros(50, 1, 40, 4)
    view = batch[3, :, :40]
    cache.add(Prefix(0, STEM, [(view, view)] * LAYERS, torch.zeros(50, 4)[3]))
    entry = cache.whole(0, STEM)
    assert entry is not None
    for one in (*(tensor for pair in entry.stored for tensor in pair), entry.hidden):
        assert one is not None
        assert one.untyped_storage().nbytes() == one.nbytes
