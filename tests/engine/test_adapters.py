"""Base and fine-tuned model on one copy of the weights: each in a mixture equals each alone, as two plain models."""

import copy
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from marple.errors import TargetRefusedError
from marple.tools.engine.engine import Engine
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Output, Request, Sampling
from marple.tools.engine.sites import Site
from marple.tools.target.loading import load_target
from marple.tools.target.target import Target
from marple.tools.target.tiny import make_tiny_checkpoint, tiny_target
from tests.engine.comparing import assert_close, assert_same
from tests.engine.small import engine_on, small_llama
from tests.engine.strategies import requests

PROFILE = settings.get_profile("engine")
STEM = tuple(at % 40 + 2 for at in range(36))


def with_adapter(model: Any) -> Any:
    """A LoRA adapter whose effect is large: both matrices are random."""
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # PEFT still reads a name that transformers has deprecated.
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
        adapted = get_peft_model(model, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data = 0.5 * torch.randn_like(parameter)
    return adapted.eval()


def switch_of(adapted: Any) -> Any:
    def switch(on: bool) -> None:
        if on:
            adapted.base_model.enable_adapter_layers()
        else:
            adapted.base_model.disable_adapter_layers()

    return switch


BASE = engine_on(small_llama(), result_bytes=0, prefix_bytes=0)
MERGED = engine_on(with_adapter(small_llama()).merge_and_unload(), result_bytes=0, prefix_bytes=0)


def engine_on_both(**given: Any) -> Engine:
    """An engine with a model of its own that has the adapter beside its weights."""
    adapted = with_adapter(small_llama())
    return engine_on(adapted.get_base_model(), switch=switch_of(adapted), **given)


BOTH = engine_on_both()


def alone(request: Request) -> Output:
    """On a plain model of its own."""
    return (MERGED if request.adapted else BASE).run([replace(request, adapted=True)])[0]


def test_the_adapter_matters() -> None:
    request = Request(STEM, logits=True)
    one, other = alone(request).logits, alone(replace(request, adapted=False)).logits
    assert one is not None
    assert other is not None
    assert float((one - other).abs().max()) > 0.5


@settings(PROFILE, max_examples=25)
@given(
    queue=st.lists(st.builds(replace, requests(), adapted=st.booleans()), min_size=1, max_size=6),
    twice=st.booleans(),
)
def test_base_and_adapted_rows_in_one_queue_equal_two_models(queue: list[Request], twice: bool) -> None:
    both = [*queue, *(replace(one, adapted=not one.adapted) for one in queue)] if twice else queue
    for request, found in zip(both, BOTH.run(both), strict=True):
        assert_same(found, alone(request), tolerance=1e-4)


def test_a_prefix_is_never_shared_between_base_and_adapted() -> None:
    engine = engine_on_both()
    engine.run([Request(STEM, sampling=Sampling(2, 0.0))])
    for tail in ((), (7, 8)):
        request = Request((*STEM, *tail), sampling=Sampling(4, 0.0), adapted=False, logprobs=True)
        assert_same(engine.run([request])[0], alone(request), tolerance=1e-4)
    many = [Request((*STEM, at + 2), logits=True, adapted=at % 2 == 0) for at in range(12)]
    for request, found in zip(many, engine.run(many), strict=True):
        assert_same(found, alone(request), tolerance=1e-4)
    assert engine.work.prefix_tokens_reused > 10 * 32


def test_answers_are_cached_for_each_apart() -> None:
    engine = engine_on_both()
    request = Request(STEM, logits=True)
    engine.run([request])
    assert_same(
        engine.run([replace(request, adapted=False)])[0], alone(replace(request, adapted=False)), tolerance=1e-4
    )


def test_threads_on_base_and_adapted_do_not_switch_each_other() -> None:
    wrong: list[str] = []
    engine = engine_on_both(batch_tokens=80, chunk=9)

    def ask(adapted: bool) -> None:
        for at in range(12):
            request = Request((*STEM[:9], at + 2), sampling=Sampling(4, 1.0, seed=at), adapted=adapted, logprobs=True)
            try:
                assert_same(engine.run([request])[0], alone_of[request], tolerance=1e-4)
            except AssertionError as error:
                wrong.append(repr(error))

    asked = [
        Request((*STEM[:9], at + 2), sampling=Sampling(4, 1.0, seed=at), adapted=adapted, logprobs=True)
        for at in range(12)
        for adapted in (True, False)
    ]
    alone_of = {request: alone(request) for request in asked}
    threads = [threading.Thread(target=ask, args=(adapted,)) for adapted in (True, False, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not wrong


def test_exclusive_use_sees_the_model_it_asked_for() -> None:
    ids = torch.tensor([STEM])
    logits = {}
    for adapted in (True, False, False, True):
        BOTH.run([Request(STEM, logits=True, adapted=not adapted)])
        with BOTH.exclusive(adapted=adapted):
            logits[adapted] = BOTH.runner.architecture.model(input_ids=ids).logits[0, -1]
        expected = alone(Request(STEM, logits=True, adapted=adapted)).logits
        assert expected is not None
        assert_close(logits[adapted], expected, 1e-4)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter's directory that names its base."""
    folder = tmp_path_factory.mktemp("adapter")
    make_tiny_checkpoint(folder / "base")
    target = load_target(folder / "base")
    adapted = with_adapter(copy.deepcopy(target.model))
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "base")
    adapted.save_pretrained(folder / "adapter")
    target.tokenizer.save_pretrained(folder / "adapter")
    return folder / "adapter"


@pytest.fixture(scope="module")
def sharing(adapter: Path) -> Target:
    return load_target(adapter, share_base=True)


@pytest.fixture(scope="module")
def apart(adapter: Path) -> Target:
    return load_target(adapter, reference=adapter.parent / "base")


def test_a_target_that_shares_its_base_equals_two_targets(sharing: Target, apart: Target) -> None:
    assert sharing.reference is not None
    assert apart.reference is not None
    assert sharing.reference.engine is sharing.engine
    prompts = [sharing.encode(text) for text in ("tell me about a red lamp", "who", "yes no maybe")]
    edits = [[Intervention(Site(0, "resid_post"), torch.ones(sharing.d_model))]] * 3
    for mine, other in ((sharing, apart), (sharing.reference, apart.reference), (sharing, apart)):
        for interventions in ((), edits):
            given_: dict[str, Any] = {"interventions": interventions}
            sampled: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.0, "seeds": [1, 2, 3]}
            assert mine.generate(prompts, **sampled, **given_) == other.generate(prompts, **sampled, **given_)
            assert_close(mine.next_logits(prompts, **given_), other.next_logits(prompts, **given_), 1e-4)
            held, expected = (
                target.capture(prompts, [Site(1, "mlp_out")], positions="all", **given_)[Site(1, "mlp_out")]
                for target in (mine, other)
            )
            for one, its in zip(held, expected, strict=True):
                assert_close(one, its, 1e-4)
            pairs = [(prompt, prompts[2]) for prompt in prompts]
            for score, its_score in zip(mine.score(pairs, **given_), other.score(pairs, **given_), strict=True):
                assert score == pytest.approx(its_score, abs=1e-3)
        hidden = torch.randn(2, mine.d_model, generator=torch.Generator().manual_seed(1))
        assert_close(mine.lens(hidden), other.lens(hidden))


def test_the_weights_of_base_and_adapted_have_digests_of_their_own(sharing: Target, apart: Target) -> None:
    assert sharing.reference is not None
    assert apart.reference is not None
    assert sharing.reference.weights_sha256() == apart.reference.weights_sha256()
    assert sharing.weights_sha256() != sharing.reference.weights_sha256()


def test_only_an_adapter_shares_a_base(adapter: Path) -> None:
    with pytest.raises(TargetRefusedError, match="no adapter"):
        load_target(adapter.parent / "base", share_base=True)


def test_another_reference_is_not_the_shared_base(adapter: Path, tmp_path: Path) -> None:
    other = make_tiny_checkpoint(tmp_path / "other", seed=4)
    with pytest.raises(TargetRefusedError, match="not the base"):
        load_target(adapter, reference=other, share_base=True)


def test_targets_can_be_made_of_models_in_memory() -> None:
    plain = tiny_target()
    adapted = with_adapter(copy.deepcopy(plain.model))
    target = Target(adapted.get_base_model(), plain.tokenizer, switch=switch_of(adapted))
    base = Target(target.model, plain.tokenizer, base_of=target)
    prompt = plain.encode("tell me")
    assert_close(base.next_logits([prompt]), plain.next_logits([prompt]), 1e-4)
    assert float((target.next_logits([prompt]) - plain.next_logits([prompt])).abs().max()) > 0.1
    target.self_check()
    base.self_check()
