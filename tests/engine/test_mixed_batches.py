"""A request in any mixture, from any thread, in any order, equals the same request alone."""

import contextvars
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from marple.tools.engine.engine import Engine
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Output, Request, Sampling
from marple.tools.engine.sites import Site
from tests.engine.comparing import assert_close, assert_same
from tests.engine.small import LAYERS, VOCAB, WIDTH, engine_on, small_llama, vector
from tests.engine.strategies import mixed, requests

MODEL = small_llama()
# Engines hook a model for good, so they are few; each lives through all examples with what it has cached.
ENGINES = {
    "roomy": engine_on(MODEL),
    "tight": engine_on(MODEL, batch_tokens=70, chunk=9),
    "no caches": engine_on(MODEL, prefix_bytes=0, result_bytes=0),
    "small caches": engine_on(MODEL, prefix_bytes=30_000, result_bytes=20_000, batch_tokens=300),
}
ALONE = engine_on(MODEL, prefix_bytes=0, result_bytes=0, chunk=4096)
PROFILE = settings.get_profile("engine")
# What depends on how threads fall cannot be shrunk.
THREADED = settings(PROFILE, phases=(Phase.explicit, Phase.generate))


def alone(request: Request) -> Output:
    return ALONE.run([request])[0]


def at_once(engine: Engine, queues: Sequence[Sequence[Request]]) -> list[list[Output]]:
    """Each queue from a thread of its own, all starting together; what fails in a thread fails here."""
    start = threading.Barrier(len(queues))

    def call(queue: Sequence[Request]) -> list[Output]:
        start.wait()
        return [output for first in range(0, len(queue), 2) for output in engine.run(queue[first : first + 2])]

    with ThreadPoolExecutor(len(queues)) as pool:
        calls = [in_thread(pool, call, queue) for queue in queues]
    return [one.result() for one in calls]


def in_thread(
    pool: Executor, call: Callable[[Sequence[Request]], list[Output]], queue: Sequence[Request]
) -> Future[list[Output]]:
    """A call in another thread that belongs to the test's own: it ends with it, however busy the machine is."""
    return pool.submit(contextvars.copy_context().run, call, queue)


@pytest.mark.parametrize("name", ENGINES)
@settings(PROFILE, max_examples=15)
@given(queue=mixed(8))
def test_a_request_in_a_mixed_batch_equals_it_alone(name: str, queue: list[Request]) -> None:
    for request, found in zip(queue, ENGINES[name].run(queue), strict=True):
        assert_same(found, alone(request))


@pytest.mark.parametrize("name", ["roomy", "tight"])
@settings(THREADED, max_examples=12)
@given(queues=st.lists(mixed(3), min_size=2, max_size=4))
def test_callers_in_several_threads_share_batches_and_nothing_else(name: str, queues: list[list[Request]]) -> None:
    for queue, found in zip(queues, at_once(ENGINES[name], queues), strict=True):
        for request, output in zip(queue, found, strict=True):
            assert_same(output, alone(request))


@settings(THREADED, max_examples=14)
@given(late=requests(), early=st.lists(requests(), min_size=1, max_size=3), step=st.integers(0, 12))
def test_a_request_may_arrive_at_any_step(late: Request, early: list[Request], step: int) -> None:
    engine = ENGINES["no caches"]
    long = Request((3, 4, 5), sampling=Sampling(12, 1.0, seed=step))
    passes = itertools.count()
    begun: list[Future[list[Output]]] = []

    def arrive(module: nn.Module, arguments: tuple[()], given_: dict[str, torch.Tensor]) -> None:
        if next(passes) == step:
            begun.append(in_thread(pool, engine.run, [late, long]))

    hook = MODEL.model.register_forward_pre_hook(arrive, with_kwargs=True)
    try:
        with ThreadPoolExecutor(1) as pool:
            found = engine.run([*early, long])
            # Too few passes for that step: it comes behind them, and its own passes are no step.
            while next(passes) <= step:
                pass
            if not begun:
                begun.append(in_thread(pool, engine.run, [late, long]))
            arrived = begun[0].result()
    finally:
        # Not while a pass may be going through the hooks.
        hook.remove()
    for request, output in zip([*early, long, late, long], [*found, *arrived], strict=True):
        assert_same(output, alone(request))


def test_row_tagged_vectors_show_that_no_row_is_swapped() -> None:
    engine = engine_on(small_llama(), batch_tokens=400)
    site = Site(LAYERS - 1, "resid_post")
    tags = 100.0 * torch.eye(WIDTH)
    # Lengths and ends differ, so rows leave and move all the time.
    queue = []
    for at in range(3 * WIDTH):
        edits = (Intervention(site, tags[at % WIDTH]),)
        captures = tuple(Capture(site, "generated", before_edits=before) for before in (True, False))
        prompt = tuple((at + 5 * step) % (VOCAB - 2) + 2 for step in range(1 + at % 7))
        queue.append(
            Request(prompt, sampling=Sampling(2 + at % 9, 1.0, seed=at), interventions=edits, captures=captures)
        )
        whole = tuple(Capture(site, "all", before_edits=before) for before in (True, False))
        queue.append(Request(prompt, (4,) * (at % 3), interventions=edits, captures=whole))
    for at, output in enumerate(engine.run(queue)):
        before, after = output.captured
        assert isinstance(before, torch.Tensor)
        assert isinstance(after, torch.Tensor)
        found = after - before
        assert found.shape[1] == WIDTH
        torch.testing.assert_close(found, tags[at // 2 % WIDTH].expand_as(found), rtol=0, atol=1e-4)
        if queue[at].sampling is not None:
            assert len(found) == len(output.tokens) - (output.finish == "length")


def test_a_place_read_twice_by_one_row_is_not_taken_from_the_next() -> None:
    engine = engine_on(small_llama())
    post, pre = Site(0, "resid_post"), Site(1, "resid_pre")
    first = Request(
        (5, 6, 7), captures=(Capture(post, "all"), Capture(pre, "all"), Capture(Site(1, "resid_mid"), "all"))
    )
    second = Request((8, 9, 10), captures=(Capture(Site(1, "resid_mid"), "all"),))
    for request, output in zip((first, second), engine.run([first, second]), strict=True):
        assert_same(output, alone(request))


@pytest.mark.parametrize("length", [5, 60])
def test_captured_positions_come_in_the_order_asked_for(length: int) -> None:
    engine = engine_on(small_llama())
    prompt = tuple(at % 40 + 2 for at in range(length))
    sites = [Site(layer, "resid_post") for layer in range(LAYERS)]
    wanted = (-1, 0, length - 2, -2, 0)
    queue = [
        Request(prompt, captures=tuple(Capture(site, positions) for site in sites)) for positions in ("all", wanted)
    ]
    whole, some = engine.run(queue)
    for every, few in zip(whole.captured, some.captured, strict=True):
        assert isinstance(every, torch.Tensor)
        assert isinstance(few, torch.Tensor)
        assert_close(few, every[list(wanted)])


@settings(PROFILE, max_examples=20)
@given(queue=st.lists(requests(), min_size=1, max_size=5, unique_by=lambda request: request.prompt))
def test_a_zero_vector_is_no_edit_bit_for_bit(queue: list[Request]) -> None:
    engine = ENGINES["no caches"]
    plain = [replace(request, interventions=()) for request in queue]
    zeros = [
        replace(
            one, interventions=tuple(replace(edit, vector=0 * edit.vector, op="add") for edit in given_.interventions)
        )
        for one, given_ in zip(plain, queue, strict=True)
    ]
    # In batches of the same shape: of equal prompts without edits only one would be read.
    with_zeros, without = engine.run(zeros), engine.run(plain)
    for one, other in zip(with_zeros, without, strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == other.logprobs
        assert one.logits is None or torch.equal(one.logits, other.logits)  # type: ignore[arg-type]
        for mine, its in zip(one.captured, other.captured, strict=True):
            assert torch.equal(mine, its)  # type: ignore[arg-type]


def test_a_sample_is_the_same_whatever_it_is_batched_with() -> None:
    engine = engine_on(small_llama(), result_bytes=0)
    mine = [Request((5, 6), sampling=Sampling(8, 1.3, 0.9, seed=at)) for at in range(6)]
    expected = [output.tokens for output in engine.run(mine)]
    assert len(set(expected)) > 3
    for others in range(1, 6):
        crowd = [Request((2 + at,) * (at + 1), sampling=Sampling(20, 0.8, seed=at)) for at in range(4 * others)]
        queue = [*crowd[::2], *reversed(mine), *crowd[1::2]]
        found = dict(zip(queue, engine.run(queue), strict=True))
        assert [found[request].tokens for request in mine] == expected


def test_a_longer_sample_begins_as_a_shorter_one() -> None:
    engine = engine_on(small_llama(), result_bytes=0)
    short, long = (engine.run([Request((5, 6), sampling=Sampling(n, 1.0, seed=4))])[0] for n in (3, 9))
    assert long.tokens[:3] == short.tokens


def test_what_one_row_blows_up_stays_in_that_row() -> None:
    engine = engine_on(small_llama(), result_bytes=0, prefix_bytes=0)
    huge = torch.full((WIDTH,), 1e38)
    broken = [
        Request(
            (5, 6, 7),
            sampling=Sampling(14, seed=at),
            interventions=(Intervention(Site(0, "resid_pre"), huge, scale=3.0),),
        )
        for at in range(4)
    ]
    fine = [Request((7, 8 + at), sampling=Sampling(20, 1.0, seed=at), logprobs=True) for at in range(6)]
    expected = [alone(request) for request in fine]
    engine.run(broken)
    for queue in (fine, [*broken, *fine], [*fine, *broken[:1]]):
        found = dict(zip(queue, engine.run(queue), strict=True))
        for request, output in zip(fine, expected, strict=True):
            assert_same(found[request], output)


def test_nothing_generated_is_an_empty_capture_of_the_right_width() -> None:
    engine = engine_on(small_llama())
    captures = (
        Capture(Site(0, "attn_out"), "generated"),
        Capture(Site(0, "attn_out"), "generated", project=vector(1, rows=3)),
    )
    output = engine.run([Request((5,), sampling=Sampling(1, 0.0), captures=captures)])[0]
    assert [tuple(one.shape) for one in output.captured if isinstance(one, torch.Tensor)] == [(0, WIDTH), (0, 3)]


def test_no_requests_have_no_answers(engine: Engine) -> None:
    assert engine.run([]) == []
    assert list(engine.stream([])) == []
    assert engine.work.forwards == 0


def hooks_of(model: Any) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())


def test_a_site_is_hooked_once_however_often_it_is_used() -> None:
    model = small_llama()
    engine = engine_on(model, result_bytes=0)
    request = Request((5, 6), captures=tuple(Capture(Site(1, name), "all") for name in ("resid_mid", "resid_post")))
    engine.run([request])
    before = hooks_of(model)
    engine.run([request, replace(request, prompt=(7, 8, 9))])
    assert hooks_of(model) == before
