"""The engine against a plain forward pass without cache, batch or hooks, edit by edit and all together."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.tools.engine.engine import Engine
from marple.tools.engine.interventions import Intervention, Op
from marple.tools.engine.requests import Capture, Request, Sampling
from marple.tools.engine.sites import SITE_NAMES, Site, SiteName
from tests.engine.comparing import assert_same
from tests.engine.reference import answer
from tests.engine.small import LAYERS, STOP, engine_on, small_llama, vector
from tests.engine.strategies import OPS, mixed

PROMPT = (5, 9, 2, 17, 9, 30, 4, 11)
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "prompt": {"phases": ("prompt",)},
    "generation": {"phases": ("generation",)},
    "last": {"positions": (-1,)},
    "positions": {"positions": (0, -3, 4)},
    "not the first": {"exclude_positions": (0,)},
    "not at 9": {"exclude_positions": (9,)},
    "tokens": {"tokens": (9, 17, 20, 21, 22, 23, 24, 25)},
    "not some tokens": {"exclude_tokens": (9, 30)},
    "second and third": {"phases": ("generation",), "generation_window": (1, 3)},
    "from the second": {"generation_window": (1, None)},
}


def everything(edits: tuple[Intervention, ...]) -> list[Request]:
    """The same edits under generation, scores, captures and logits."""
    sites = [Site(layer, name) for layer in range(LAYERS) for name in SITE_NAMES]
    read = tuple(Capture(site, "all", before_edits=before) for site in sites for before in (False, True))
    said = tuple(Capture(Site(1, name), "generated") for name in SITE_NAMES)
    return [
        Request(PROMPT, sampling=Sampling(6, 0.0), interventions=edits, captures=said, logprobs=True),
        Request(PROMPT, sampling=Sampling(6, 1.2, seed=3), interventions=edits),
        Request(PROMPT, (7, 9, 20, 3), interventions=edits, captures=read, logprobs=True, logits=True),
    ]


@pytest.fixture(scope="module")
def shared(llama: Any) -> Engine:
    return engine_on(llama)


_EACH = [
    (name, op, where)
    for at, name in enumerate(SITE_NAMES)
    for by, op in enumerate(OPS)
    for nth, where in enumerate(FILTERS)
    if where == "all" or (at + by + nth) % len(SITE_NAMES) == 0
]
"""Every edit at every site, and every edit with every filter."""


@pytest.mark.parametrize(("name", "op", "where"), _EACH)
def test_every_edit_does_what_it_says(shared: Engine, llama: Any, name: SiteName, op: Op, where: str) -> None:
    scale = 0.7 if op == "norm_add" else 1.5
    edit = Intervention(Site(1, name), vector(8), op, scale, **FILTERS[where])
    queue = everything((edit,))
    for request, found in zip(queue, shared.run(queue), strict=True):
        assert_same(found, answer(llama, request))
    plain, changed = answer(llama, everything(())[2]), answer(llama, queue[2])
    assert plain.logprobs != changed.logprobs


@pytest.mark.parametrize("op", OPS)
def test_a_vector_for_each_position(shared: Engine, llama: Any, op: Op) -> None:
    edit = Intervention(Site(0, "resid_post"), vector(4, rows=3), op, 0.8, positions=(-1, 0, 3))
    queue = everything((edit,))
    for request, found in zip(queue, shared.run(queue), strict=True):
        assert_same(found, answer(llama, request))


def test_edits_that_meet_are_made_in_their_order(shared: Engine, llama: Any) -> None:
    pre, post = Site(1, "resid_pre"), Site(0, "resid_post")
    first = Intervention(post, vector(1), "clamp", 3.0)
    second = Intervention(pre, vector(2), "norm_add", 1.0)
    third = Intervention(post, vector(3), "add", -2.0, phases=("generation",))
    orders = [(first, second, third), (second, first, third), (third, second, first)]
    queue = [request for order in orders for request in everything(order)]
    outputs = shared.run(queue)
    for request, found in zip(queue, outputs, strict=True):
        assert_same(found, answer(llama, request))
    assert len({output.logprobs for output in outputs[2::3]}) == 3


def test_a_vector_of_any_length_has_its_direction(shared: Engine, llama: Any) -> None:
    ops: tuple[Op, ...] = ("norm_add", "ablate", "clamp")
    for length in (1e-25, 1e25):
        for op in ops:
            queue = everything((Intervention(Site(1, "resid_pre"), vector(5, length=length), op, 0.9),))
            for request, found in zip(queue, shared.run(queue), strict=True):
                assert_same(found, answer(llama, request))


def test_a_zero_vector_has_no_direction(shared: Engine, llama: Any) -> None:
    for op in OPS[:4]:
        queue = everything((Intervention(Site(1, "resid_mid"), 0 * vector(5), op, 0.9),))
        for request, found, plain in zip(queue, shared.run(queue), everything(()), strict=True):
            assert_same(found, answer(llama, request))
            assert_same(found, answer(llama, plain))


def test_the_reference_stops_where_the_engine_does(llama: Any) -> None:
    lengths = set()
    queue = [Request((at,), sampling=Sampling(12, 1.5, seed=at), logprobs=True) for at in range(2, 30)]
    engine = engine_on(small_llama())
    for request, found in zip(queue, engine.run(queue), strict=True):
        assert_same(found, answer(llama, request))
        assert STOP not in found.tokens
        assert len(found.logprobs) == len(found.tokens) + (found.finish == "stop")
        lengths.add((found.finish, len(found.tokens)))
    assert len(lengths) >= 3


@settings(settings.get_profile("engine"), max_examples=35)
@given(queue=mixed(4), small=st.booleans())
def test_any_batch_equals_the_plain_computation(queue: list[Request], small: bool) -> None:
    engine = TIGHT if small else WIDE
    for request, found in zip(queue, engine.run(queue), strict=True):
        assert_same(found, answer(MODEL, request))


MODEL = small_llama()
WIDE, TIGHT = engine_on(MODEL), engine_on(MODEL, batch_tokens=90, chunk=7, prefix_bytes=40_000)
