"""Cancelled calls, memory that runs out and parts that fail: what it means for the caller, and for all the others."""

import contextvars
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marple.tools.calls import Call, CallCancelled, during
from marple.tools.engine.engine import Engine
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Output, Request, Sampling, TopFeatures
from marple.tools.engine.sites import Site
from tests.engine.comparing import assert_same
from tests.engine.small import LAYERS, engine_on, small_llama, vector

STEM = tuple(at % 40 + 2 for at in range(36))
POST = Site(1, "resid_post")


def sample(at: int, steps: int = 8) -> Request:
    captures = (Capture(POST, "generated"), Capture(Site(0, "attn_out"), "last")) if at % 3 == 0 else ()
    edits = (Intervention(POST, vector(at)),) if at % 2 else ()
    return Request((5, at % 40 + 2), (), Sampling(steps, 1.0, seed=at), edits, captures, logprobs=True)


def read(at: int) -> Request:
    return Request((7, at % 40 + 2, 9), captures=(Capture(POST, "all"),))


SAMPLES = [sample(at) for at in range(12)]
READS = [read(at) for at in range(12)]
SCORES = [Request((at + 2, 5), (6, at + 2, 8), logprobs=True) for at in range(12)]
LONG = [Request((*STEM, at + 2, *STEM[:at]), logits=True) for at in range(16)]


def alone(queue: Sequence[Request]) -> list[Output]:
    plain = engine_on(small_llama(), prefix_bytes=0, result_bytes=0)
    return [plain.run([request])[0] for request in queue]


def assert_all_same(found: Sequence[Output], expected: Sequence[Output]) -> None:
    for mine, other in zip(found, expected, strict=True):
        assert_same(mine, other)


def assert_idle(engine: Engine) -> None:
    """Nothing is left over, and the next caller is served."""
    assert_all_same(engine.run(SAMPLES[:2]), alone(SAMPLES[:2]))
    assert not engine._singles
    assert not engine._seeds
    for lane in engine._lanes.values():
        assert not lane.rows
        assert not lane.waiting


# ------------------------------------------------------------------------------- cancelling

STEADY = [Request((9, at + 2), sampling=Sampling(60, 1.0, seed=at)) for at in range(6)]
BEGUN = [Request((at + 2, *STEM, other + 2), logits=True) for at in range(30) for other in range(4)]
"""30 groups, each with a beginning of its own that is worth reading first."""
MANY = [Request((at + 2, other + 2, 5), captures=(Capture(POST),)) for at in range(20) for other in range(12)]


def cancelled_at(step: int, model: Any, call: Call) -> None:
    """Cancel the call at the model's n-th pass."""
    passes = itertools.count()

    def cancel(module: nn.Module, arguments: Any) -> None:
        if next(passes) == step:
            call.cancelled.set()

    model.model.register_forward_pre_hook(cancel)


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize("queue", [STEADY, MANY, LONG, BEGUN])
def test_a_cancelled_call_ends_at_its_next_step(step: int, queue: list[Request]) -> None:
    model, call = small_llama(), Call()
    engine = engine_on(model, batch_tokens=64, result_bytes=0)
    cancelled_at(step, model, call)
    with during(call), pytest.raises(CallCancelled):
        engine.run(queue)
    # A step is at most a pass over seeds, one over prompts and one token more.
    assert engine.work.forwards <= step + 8
    assert_idle(engine)


def test_a_call_cancelled_before_it_begins_computes_nothing(engine: Engine) -> None:
    call = Call()
    call.cancelled.set()
    with during(call), pytest.raises(CallCancelled):
        engine.run(SAMPLES)
    assert engine.work.forwards == 0
    assert_idle(engine)


@pytest.mark.parametrize("first", ["cancelled", "others"])
def test_the_others_do_not_notice_a_cancelled_call(first: str) -> None:
    model, call = small_llama(), Call()
    engine = engine_on(model, result_bytes=0)
    cancelled_at(9, model, call)
    mine = [sample(at, 40) for at in range(6)]
    others = [sample(at, 25) for at in range(20, 28)] + READS
    ended: list[BaseException] = []
    found: list[Output] = []

    def cancelled() -> None:
        try:
            with during(call):
                engine.run(mine)
        except CallCancelled as error:
            ended.append(error)

    threads = [threading.Thread(target=cancelled), threading.Thread(target=lambda: found.extend(engine.run(others)))]
    for thread in threads if first == "cancelled" else reversed(threads):
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join(timeout=60)
    assert len(ended) == 1
    assert_all_same(found, alone(others))
    assert_idle(engine)


def test_a_waiting_caller_is_cancelled_while_another_drives() -> None:
    engine = engine_on(small_llama())
    call, inside, done = Call(), threading.Event(), threading.Event()
    waited: list[float] = []

    def wait() -> None:
        with during(call), pytest.raises(CallCancelled):
            engine.run(READS)
        waited.append(time.monotonic())
        done.set()

    with engine.exclusive():
        thread = threading.Thread(target=wait)
        thread.start()
        inside.wait(0.05)
        start = time.monotonic()
        call.cancelled.set()
        assert done.wait(10)
    assert waited[0] - start < 2
    thread.join()
    assert_idle(engine)


def test_progress_goes_up_to_the_whole(engine: Engine) -> None:
    told: list[tuple[int, int, str]] = []
    engine.most_rows = 4
    queue = [*SAMPLES, *READS, *READS, *SCORES]
    engine.run(READS[:3])
    with during(Call(on_progress=lambda *given: told.append(given))):
        engine.run(queue, what="things")
    done = [each[0] for each in told]
    assert done == sorted(set(done))
    # What is in the cache is done from the beginning.
    assert done[0] == 6
    assert done[-1] == len(queue)
    assert len(done) > 4
    assert {each[1:] for each in told} == {(len(queue), "things")}


# ------------------------------------------------------------------------------- memory


def rows_of(given: dict[str, Any]) -> tuple[int, int]:
    rows, width = given["input_ids"].shape
    return int(rows), int(width)


def short_of_memory(model: Any, fails: Callable[[int, int], bool]) -> list[int]:
    """Let the decoder's passes fail by their number of rows and width; returns the rows of every pass."""
    seen: list[int] = []

    def check(module: nn.Module, arguments: Any, given: dict[str, Any]) -> None:
        rows, width = rows_of(given)
        seen.append(rows)
        if fails(rows, width):
            raise torch.OutOfMemoryError("no memory")

    model.model.register_forward_pre_hook(check, with_kwargs=True)
    return seen


MIDWAY: dict[str, Callable[[int, int], bool]] = {
    "decoding": lambda rows, width: rows > 3 and width == 1,
    "reading": lambda rows, width: rows > 3 and width > 1,
    "always": lambda rows, width: rows > 1,
    "by tokens": lambda rows, width: rows * width > 40,
}


@pytest.mark.parametrize("when", MIDWAY)
@pytest.mark.parametrize("name", ["samples", "reads", "scores", "long", "mixed"])
def test_running_out_of_memory_changes_nothing_but_the_note(name: str, when: str) -> None:
    queues = {"samples": SAMPLES, "reads": READS, "scores": SCORES, "long": LONG}
    queue = queues.get(name) or [*SAMPLES[:6], *READS[:6], *SCORES, *LONG[:4], *SAMPLES[6:]]
    model, call = small_llama(), Call()
    engine = engine_on(model)
    seen = short_of_memory(model, MIDWAY[when])
    with during(call):
        found = engine.run(queue)
    assert_all_same(found, alone(queue))
    failed = len(seen) > engine.work.forwards
    assert bool(call.notes) == failed
    if name != "long" and not (when == "by tokens" or (when == "decoding" and name in ("reads", "scores"))):
        assert failed
        assert "memory ran out with" in call.notes[0]
    assert_idle(engine)


def test_running_out_of_memory_in_the_middle_of_generating() -> None:
    # Rows have said different numbers of tokens by then, and captured them.
    model = small_llama()
    engine = engine_on(model, batch_tokens=150)
    passes = itertools.count()
    seen = short_of_memory(model, lambda rows, width: rows > 2 and next(passes) in (6, 11, 13))
    queue = [sample(3 * at, 5 + at) for at in range(10)]
    assert_all_same(engine.run(queue), alone(queue))
    assert len(seen) > engine.work.forwards
    assert_idle(engine)


def test_running_out_of_memory_in_the_head() -> None:
    model, call = small_llama(), Call()
    engine = engine_on(model)

    def check(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if len(arguments[0]) > 3:
            raise torch.OutOfMemoryError("no memory")

    model.lm_head.register_forward_pre_hook(check)
    queue = [Request((5, at + 2), (), Sampling(6, 1.0, seed=at), (), (Capture(POST, "generated"),)) for at in range(9)]
    with during(call):
        assert_all_same(engine.run(queue), alone(queue))
    assert call.notes
    assert_all_same(engine.run(SCORES[:9]), alone(SCORES[:9]))


def test_samples_of_one_prompt_survive_memory_running_out() -> None:
    queue = [Request(STEM, (), Sampling(5, 1.0, seed=at), (), ()) for at in range(6)]
    queue += [Request(STEM, (), Sampling(5, 1.0, seed=at), (), (Capture(POST, "all"),)) for at in range(6)]
    for most in (1, 2, 5):
        model = small_llama()
        engine = engine_on(model)
        short_of_memory(model, lambda rows, width, most=most: rows > most)  # type: ignore[misc]
        assert_all_same(engine.run(queue), alone(queue))
        assert_idle(engine)


def test_a_row_that_does_not_fit_alone_is_a_memory_error_and_the_engine_lives_on() -> None:
    model = small_llama()
    engine = engine_on(model)
    short_of_memory(model, lambda rows, width: width > 20)
    for request in (
        Request(STEM, logits=True),
        Request(STEM, sampling=Sampling(2)),
        Request(STEM, (5,), logprobs=True),
    ):
        with pytest.raises(MemoryError, match="one request alone does not fit"):
            engine.run([request])
        assert_idle(engine)


def test_a_caller_whose_row_does_not_fit_takes_nobody_along() -> None:
    model = small_llama()
    engine = engine_on(model, chunk=4096)
    short_of_memory(model, lambda rows, width: width > 20)
    outcomes: dict[str, Any] = {}
    start = threading.Barrier(2)

    def run(name: str, queue: list[Request]) -> None:
        start.wait()
        try:
            outcomes[name] = engine.run(queue)
        except MemoryError as error:
            outcomes[name] = error

    threads = [
        threading.Thread(target=run, args=("large", [Request(STEM, sampling=Sampling(3)), *SAMPLES])),
        threading.Thread(target=run, args=("small", [*SAMPLES, *READS])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert isinstance(outcomes["large"], MemoryError)
    assert_all_same(outcomes["small"], alone([*SAMPLES, *READS]))
    assert_idle(engine)


# ------------------------------------------------------------------------------- what fails


class Faulty:
    """An encoder that fails for some, or after some."""

    fingerprint = "faulty"

    def __init__(self, error: Exception, *, times: int = 1 << 30, after: int = 0) -> None:
        self.error = error
        self.calls = 0
        self.failing = range(after, after + times)

    def top(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls - 1 in self.failing:
            raise self.error
        values, indices = hidden.topk(k, dim=-1)
        return values, indices


def encoded(encoder: Faulty, at: int, *, speaking: bool = False) -> Request:
    capture = Capture(POST, "generated" if speaking else "all", encoder=encoder, top_k=2)
    return Request((7, at + 2, 9), sampling=Sampling(4) if speaking else None, captures=(capture,))


@pytest.mark.parametrize("speaking", [False, True])
def test_an_encoder_that_fails_reaches_its_own_caller_alone(speaking: bool) -> None:
    engine = engine_on(small_llama())
    outcomes: dict[str, Any] = {}
    faulty = Faulty(ValueError("this encoder is broken"))

    def run(name: str, queue: list[Request]) -> None:
        try:
            outcomes[name] = engine.run(queue)
        except ValueError as error:
            outcomes[name] = error

    fine = [*READS, *SAMPLES]
    threads = [
        threading.Thread(
            target=run, args=("broken", [*READS[:3], *(encoded(faulty, at, speaking=speaking) for at in range(3))])
        ),
        threading.Thread(target=run, args=("fine", fine)),
    ]
    with engine.exclusive():
        for thread in threads:
            thread.start()
        # Both are in line before the first pass, so they share it.
        while len(engine._singles) + sum(len(lane.waiting) for lane in engine._lanes.values()) < len(fine) + 6:
            time.sleep(0.005)
    for thread in threads:
        thread.join(timeout=60)
    assert str(outcomes["broken"]) == "this encoder is broken"
    assert_all_same(outcomes["fine"], alone(fine))
    assert_idle(engine)


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("speaking", [False, True])
def test_an_encoder_that_runs_out_of_memory_once_changes_nothing(after: int, speaking: bool) -> None:
    engine = engine_on(small_llama())
    faulty = Faulty(torch.OutOfMemoryError("no memory"), times=1, after=after)
    queue = [encoded(faulty, at, speaking=speaking) for at in range(6)]
    found = engine.run(queue)
    assert len(found) == 6
    sound = Faulty(ValueError(), times=0)
    expected = alone([encoded(sound, at, speaking=speaking) for at in range(6)])
    for mine, other in zip(found, expected, strict=True):
        assert mine.tokens == other.tokens
        one, its = mine.captured[0], other.captured[0]
        assert isinstance(one, TopFeatures)
        assert isinstance(its, TopFeatures)
        assert torch.equal(one.indices, its.indices)
        torch.testing.assert_close(one.values, its.values, rtol=0, atol=1e-4)
    assert_idle(engine)


def test_a_model_that_fails_once_fails_those_in_the_pass_and_lives_on() -> None:
    model = small_llama()
    engine = engine_on(model)
    passes = itertools.count()

    def fail(module: nn.Module, arguments: Any) -> None:
        if next(passes) == 2:
            raise RuntimeError("a cable is loose")

    model.model.layers[LAYERS - 1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="a cable is loose"):
        engine.run(SAMPLES)
    assert_idle(engine)
    assert_all_same(engine.run([*SAMPLES, *READS]), alone([*SAMPLES, *READS]))


@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_whoever_is_interrupted_while_driving_loses_nothing_of_the_others(step: int) -> None:
    model = small_llama()
    engine = engine_on(model)
    passes = itertools.count()

    def interrupt(module: nn.Module, arguments: Any) -> None:
        if next(passes) == step:
            raise KeyboardInterrupt

    model.model.layers[LAYERS - 1].register_forward_pre_hook(interrupt)
    queues = [[*SAMPLES[:6], *LONG[:6], *READS[:3]], [*SAMPLES[6:], *LONG[6:], *SCORES[3:]]]
    expected = [alone(queue) for queue in queues]
    interrupted: list[int] = []
    context = contextvars.copy_context()

    def call(at: int) -> list[Output]:
        try:
            return engine.run(queues[at])
        except KeyboardInterrupt:
            interrupted.append(at)
            return []

    with ThreadPoolExecutor(2) as pool:
        with engine.exclusive():
            calls = [pool.submit(context.copy().run, call, at) for at in range(2)]
            # Both are in line before the first pass, so it is for both.
            while len(engine._singles) + sum(len(lane.waiting) for lane in engine._lanes.values()) < 36:
                time.sleep(0.005)
        found = [one.result() for one in calls]
    (gone,) = interrupted
    assert_all_same(found[1 - gone], expected[1 - gone])
    assert_idle(engine)


def test_a_progress_report_that_fails_ends_its_own_call_alone(engine: Engine) -> None:
    def broken(done: int, total: int, what: str) -> None:
        if done:
            raise BrokenPipeError("nobody listens")

    with during(Call(on_progress=broken)), pytest.raises(BrokenPipeError):
        engine.run([*READS, *SAMPLES])
    assert_idle(engine)


# ------------------------------------------------------------------------------- alone with the model


def test_no_pass_runs_while_somebody_has_the_model_alone() -> None:
    model = small_llama()
    engine = engine_on(model)
    inside, seen = threading.Event(), []
    model.model.register_forward_pre_hook(lambda module, arguments: seen.append(inside.is_set()))
    thread = threading.Thread(target=lambda: engine.run([*SAMPLES, *READS]))
    with engine.exclusive():
        inside.set()
        thread.start()
        thread.join(timeout=0.2)
        assert thread.is_alive()
        inside.clear()
    thread.join(timeout=60)
    assert seen
    assert not any(seen)


def test_whoever_wants_the_model_alone_gets_it_in_the_middle_of_others_work() -> None:
    engine = engine_on(small_llama(), result_bytes=0)
    engine.most_rows = 2
    stop = threading.Event()

    def work(number: int) -> None:
        for at in itertools.count(number, 10):
            if stop.is_set():
                return
            engine.run([sample(at + each, 6) for each in range(6)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    waits = []
    for _ in range(5):
        start = time.monotonic()
        with engine.exclusive():
            waits.append(time.monotonic() - start)
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
    assert max(waits) < 5
