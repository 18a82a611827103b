"""Answers that were given before are given again, unless they are asked for afresh, and nobody can spoil them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from marple.tools.calls import Call, during
from marple.tools.engine.engine import Engine
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Output, Request, Sampling, TopFeatures
from marple.tools.engine.results import ResultCache
from marple.tools.engine.sites import Site
from tests.engine.small import WIDTH, engine_on, small_llama, vector

READ = Request((5, 6, 7), logits=True, captures=(Capture(Site(0, "resid_post"), "all"),))
SAID = Request((5, 6, 7), sampling=Sampling(5, 1.0, seed=3))


class Strongest:
    """Its features are the dimensions themselves."""

    def __init__(self, name: str = "a") -> None:
        self.fingerprint = name

    def top(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, indices = hidden.topk(k, dim=-1)
        return values, indices


def tensors(output: Output) -> list[Tensor]:
    found = [] if output.logits is None else [output.logits]
    for one in output.captured:
        found += [one.values, one.indices] if isinstance(one, TopFeatures) else [one]
    return found


@pytest.mark.parametrize("request_", [READ, SAID])
def test_the_same_question_is_answered_once(engine: Engine, request_: Request) -> None:
    first = engine.run([request_])[0]
    forwards = engine.work.forwards
    again = engine.run([replace(request_)])[0]
    assert engine.work.forwards == forwards
    assert engine.work.cache_hits == 1
    assert (again.tokens, again.logprobs) == (first.tokens, first.logprobs)
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(again), strict=True))


def test_a_fresh_call_computes_again(engine: Engine) -> None:
    engine.run([READ])
    forwards = engine.work.forwards
    with during(Call(fresh=True)):
        again = engine.run([READ, READ])
    assert engine.work.forwards == forwards + 1
    assert engine.work.cache_hits == 1
    assert torch.equal(tensors(again[0])[0], tensors(engine.run([READ])[0])[0])


def test_equal_requests_of_one_call_run_once_and_get_answers_of_their_own(engine: Engine) -> None:
    first, second = engine.run([READ, READ])
    assert engine.work.prompt_tokens == 3
    kept = [one.clone() for one in tensors(second)]
    for one in tensors(first):
        one.zero_()
    assert all(torch.equal(a, b) for a, b in zip(tensors(second), kept, strict=True))


def test_changing_an_answer_in_place_changes_no_later_answer(engine: Engine) -> None:
    encoded = replace(READ, captures=(*READ.captures, Capture(Site(1, "mlp_out"), "all", encoder=Strongest(), top_k=3)))
    expected = [one.clone() for one in tensors(engine_on(small_llama()).run([encoded])[0])]
    for _ in range(3):
        found = tensors(engine.run([encoded])[0])
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        for one in found:
            one.zero_()


def test_changing_an_answer_in_place_changes_no_prefix() -> None:
    engine = engine_on(small_llama(), result_bytes=0)
    prompt = tuple(at % 40 + 2 for at in range(30))
    held = tuple(Capture(Site(layer, "resid_pre"), "all") for layer in range(3))
    engine.run([Request(prompt, sampling=Sampling(3, 0.0), captures=held)])
    spoiled = engine.run([Request(prompt, sampling=Sampling(4, 0.0), captures=held)])[0]
    for one in tensors(spoiled):
        one.fill_(1e6)
    after = Request((*prompt, 5), logits=True)
    plain = engine_on(small_llama(), prefix_bytes=0).run([after])[0]
    torch.testing.assert_close(engine.run([after])[0].logits, plain.logits, rtol=0, atol=1e-4)


EDIT = Intervention(Site(0, "resid_post"), vector(1))


@pytest.mark.parametrize(
    "other",
    [
        replace(READ, prompt=(5, 6, 8)),
        replace(READ, continuation=(7,)),
        replace(READ, logits=False),
        replace(READ, adapted=False),
        replace(READ, captures=()),
        replace(READ, captures=(replace(READ.captures[0], mean=True),)),
        replace(READ, captures=(replace(READ.captures[0], before_edits=True),)),
        replace(READ, captures=(replace(READ.captures[0], project=vector(1, rows=2)),)),
        replace(READ, captures=(replace(READ.captures[0], encoder=Strongest(), top_k=3),)),
        replace(READ, interventions=(EDIT,)),
        SAID,
        replace(SAID, sampling=Sampling(5, 1.0, seed=4)),
        replace(SAID, sampling=Sampling(5, 1.0, 0.5, seed=3)),
        replace(SAID, sampling=Sampling(6, 1.0, seed=3)),
        replace(SAID, sampling=Sampling(5, 1.1, seed=3)),
    ],
)
def test_another_question_is_another_question(engine: Engine, other: Request) -> None:
    asked = READ if other.sampling is None or other is SAID else SAID
    assert other != asked
    engine.run([asked])
    engine.run([other])
    assert engine.work.cache_hits == 0


def test_other_directions_and_encoders_are_other_questions() -> None:
    site = Site(0, "resid_post")
    captures = [
        Capture(site, project=vector(1, rows=2)),
        Capture(site, project=vector(2, rows=2)),
        Capture(site, project=vector(1, rows=2).reshape(4, WIDTH // 2)),
        Capture(site, encoder=Strongest("a")),
        Capture(site, encoder=Strongest("b")),
        Capture(site, encoder=Strongest("a"), top_k=3),
        Capture(site, (0,)),
        Capture(site, (-1,)),
    ]
    assert len(set(captures)) == len(captures)
    assert Capture(site, project=vector(1, rows=2)) == captures[0]
    assert hash(Capture(site, project=vector(1, rows=2))) == hash(captures[0])


def test_the_bound_holds_and_the_least_recently_used_goes_first() -> None:
    def answered(at: int) -> tuple[Request, Output]:
        return Request((at,), logits=True), Output(logits=torch.full((1000,), float(at)))

    cache = ResultCache(50_000)
    for at in range(8):
        cache.add(*answered(at))
        cache.get(answered(0)[0])
    kept = [at for at in range(8) if cache.get(answered(at)[0]) is not None]
    assert kept[0] == 0
    assert 7 in kept
    assert len(kept) >= 8 or 1 not in kept
    for at in range(8, 40):
        cache.add(*answered(at))
    kept = [at for at in range(40) if cache.get(answered(at)[0]) is not None]
    assert 8 <= len(kept) <= 12
    assert kept == list(range(40 - len(kept), 40))


def test_one_large_answer_does_not_drive_out_the_others() -> None:
    cache = ResultCache(80_000)
    small = Request((1,), logits=True)
    cache.add(small, Output(logits=torch.zeros(100)))
    cache.add(Request((2,), logits=True), Output(logits=torch.zeros(10_000)))
    assert cache.get(small) is not None
    assert cache.get(Request((2,), logits=True)) is None


def test_forgetting_empties_both_caches(engine: Engine) -> None:
    engine.run([SAID])
    tokens = engine.work.prompt_tokens
    engine.forget()
    engine.run([SAID])
    assert engine.work.prompt_tokens == 2 * tokens
