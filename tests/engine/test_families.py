"""Every family of models: the engine against transformers' own forward pass and ``generate``."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marple.errors import TargetRefusedError
from marple.tools.engine import architecture as table
from marple.tools.engine.architecture import read_architecture
from marple.tools.engine.engine import Engine
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Request, Sampling
from marple.tools.engine.selfcheck import check_model
from marple.tools.engine.sites import SITE_NAMES, Site
from tests.engine.comparing import assert_close, assert_same
from tests.engine.families import CONFIGURATIONS, CONTEXT, LAYERS, VOCAB, WIDTH, WINDOW, random_model

CASES = [
    (name, attention)
    for name in CONFIGURATIONS
    for attention in ("eager", "sdpa")
    # Its soft-capped attention has no fused form.
    if (name, attention) != ("gemma2", "sdpa")
]
PROMPTS = [
    tuple((at * at + 3 * at * length + 5) % (VOCAB - 2) + 2 for at in range(length))
    for length in (1, 4, WINDOW, WINDOW + 1, 17, 30)
]
NEW = 9


def engine_on(model: Any, **given: Any) -> Engine:
    architecture = read_architecture(model)
    return Engine(architecture, stop_tokens=frozenset(), **{"batch_tokens": 2000, "chunk": 11, **given})


def generated_by_transformers(model: Any, prompt: tuple[int, ...], steps: int = NEW) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    whole = model.generate(ids, attention_mask=mask, max_new_tokens=steps, do_sample=False, pad_token_id=0)
    return tuple(whole[0, len(prompt) :].tolist())


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_the_check_at_load_passes(name: str, attention: str) -> None:
    model = random_model(name, attention=attention)
    found = check_model(read_architecture(model), engine_on(model).runner)
    assert found.hidden_states == found.zero_vector == 0
    assert found.parts < 1e-5
    assert found.lens_of_last_layer < 1e-5


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_greedy_generation_of_a_ragged_batch_is_transformers_own(name: str, attention: str) -> None:
    model = random_model(name, attention=attention)
    expected = [generated_by_transformers(model, prompt) for prompt in PROMPTS]
    assert len(set(expected)) >= len(PROMPTS) - 1
    for chunk in (11, 2048):
        engine = engine_on(model, chunk=chunk)
        queue = [Request(prompt, sampling=Sampling(NEW, 0.0)) for prompt in PROMPTS]
        assert [output.tokens for output in engine.run(queue)] == expected
    # Rows of one length take another path.
    alike = [tuple(reversed(PROMPTS[-1])), PROMPTS[-1]]
    engine = engine_on(model)
    found = engine.run([Request(prompt, sampling=Sampling(NEW, 0.0)) for prompt in alike])
    assert [output.tokens for output in found] == [generated_by_transformers(model, alike[0]), expected[-1]]


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_scores_and_logits_are_those_of_one_forward_pass(name: str, attention: str) -> None:
    model = random_model(name, attention=attention)
    engine = engine_on(model)
    queue = [Request(prompt, (7, 3, 30, 9), logprobs=True, logits=True) for prompt in PROMPTS]
    for request, output in zip(queue, engine.run(queue), strict=True):
        logits = model(input_ids=torch.tensor([request.tokens])).logits[0]
        assert output.logits is not None
        assert_close(output.logits, logits[-1])
        steps = torch.log_softmax(logits, dim=-1)
        start = len(request.prompt)
        expected = [float(steps[at - 1, request.tokens[at]]) for at in range(start, start + 4)]
        assert output.logprobs == pytest.approx(expected, abs=1e-4)


def read_all(engine: Engine, prompt: tuple[int, ...], edits: tuple[Intervention, ...] = ()) -> dict[Site, Tensor]:
    names = [it for it in SITE_NAMES if not (it == "resid_mid" and engine.runner.architecture.parallel)]
    sites = [Site(layer, name) for layer in range(LAYERS) for name in names]
    captures = tuple(Capture(site, "all") for site in sites)
    output = engine.run([Request(prompt, interventions=edits, captures=captures)])[0]
    return {site: it for site, it in zip(sites, output.captured, strict=True) if isinstance(it, Tensor)}


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_every_site_is_where_it_is_said_to_be(name: str, attention: str) -> None:
    model = random_model(name, attention=attention)
    engine = engine_on(model)
    for prompt in PROMPTS:
        held = read_all(engine, prompt)
        states = model(input_ids=torch.tensor([prompt]), output_hidden_states=True).hidden_states
        for layer in range(LAYERS):
            at = {site: held[Site(layer, site)] for site in SITE_NAMES if Site(layer, site) in held}
            assert_close(at["resid_pre"], states[layer][0])
            if layer < LAYERS - 1:
                assert_close(at["resid_post"], states[layer + 1][0])
            assert float(at["attn_out"].norm()) > 0.01
            assert float(at["mlp_out"].norm()) > 0.01
            assert_close(at["resid_pre"] + at["attn_out"] + at["mlp_out"], at["resid_post"])
            if "resid_mid" in at:
                assert_close(at["resid_pre"] + at["attn_out"], at["resid_mid"])
        last = engine.runner.architecture.lens(held[Site(LAYERS - 1, "resid_post")])
        assert_close(last, model(input_ids=torch.tensor([prompt])).logits[0])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_edit_of_the_stream_is_what_a_hook_on_the_layer_does(name: str) -> None:
    model, plain = random_model(name), random_model(name)
    engine = engine_on(model)
    added = torch.linspace(-1, 1, WIDTH)
    layers: Any = plain.get_decoder().h if name == "gpt2" else plain.get_decoder().layers

    def steer(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

    layers[1].register_forward_hook(steer)
    expected = [generated_by_transformers(plain, prompt) for prompt in PROMPTS]
    for site in (Site(1, "resid_post"), Site(2, "resid_pre"), Site(1, "mlp_out")):
        edits = (Intervention(site, added),)
        queue = [Request(prompt, sampling=Sampling(NEW, 0.0), interventions=edits) for prompt in PROMPTS]
        assert [output.tokens for output in engine.run(queue)] == expected
    assert expected != [generated_by_transformers(model, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_edit_beside_the_stream_moves_the_stream_as_far(name: str) -> None:
    engine = engine_on(random_model(name))
    plain, added = read_all(engine, PROMPTS[4]), torch.linspace(-1, 1, WIDTH)
    for site in plain:
        if site.layer != 1:
            continue
        edited = read_all(engine, PROMPTS[4], (Intervention(site, added),))
        assert_close(edited[site], plain[site] + added)
        if site.name == "attn_out" and Site(1, "resid_mid") in plain:
            assert_close(edited[Site(1, "resid_mid")], plain[Site(1, "resid_mid")] + added)
        if site.name == "resid_mid":
            assert_close(edited[Site(1, "resid_post")] - edited[Site(1, "mlp_out")], plain[site] + added)
        if site.name == "mlp_out":
            assert_close(edited[Site(1, "resid_post")], plain[Site(1, "resid_post")] + added)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_known_prefix_changes_nothing(name: str) -> None:
    engine, fresh = engine_on(random_model(name)), engine_on(random_model(name), prefix_bytes=0)
    stem = PROMPTS[-1]
    engine.run([Request(stem, sampling=Sampling(2, 0.0))])
    queue = [Request((*stem, at + 2, 9), sampling=Sampling(NEW, 1.0, seed=at)) for at in range(3)]
    queue += [Request((*stem, 4, at + 2), (5, 6), logprobs=True, logits=True) for at in range(3)]
    queue += [Request((*stem, 4, at), captures=(Capture(Site(1, "attn_out")),)) for at in range(3)]
    before = engine.work.prefix_tokens_reused
    for found, expected in zip(engine.run(queue), fresh.run(queue), strict=True):
        assert_same(found, expected)
    assert engine.work.prefix_tokens_reused - before >= 9 * 16
    assert fresh.work.prefix_tokens_reused < engine.work.prefix_tokens_reused


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text"])
def test_a_prompt_may_fill_the_context(name: str) -> None:
    # Rows with a known prefix are padded, and a row that is done waits for its batch: neither may leave the context.
    model = random_model(name)
    engine = engine_on(model, chunk=8)
    full = tuple(at % 30 + 2 for at in range(CONTEXT))
    other = tuple(reversed(full))[:20]
    engine.run([Request(full[:-1], sampling=Sampling(1, 0.0)), Request(other, sampling=Sampling(1, 0.0))])
    queue = [Request(full, logits=True), Request((*other, *full[:40]), logits=True)]
    queue += [Request((*full[:48], 7, 9, 3), logits=True), Request((*full[:32], *full[:32]), logits=True)]
    for request, output in zip(queue, engine.run(queue), strict=True):
        assert output.logits is not None
        assert_close(output.logits, model(input_ids=torch.tensor([request.prompt])).logits[0, -1])
    ends = [Request(full[: CONTEXT - 2], sampling=Sampling(2, 0.0)), Request(full[:3], sampling=Sampling(30, 0.0))]
    for request, output in zip(ends, engine.run(ends), strict=True):
        assert request.sampling is not None
        expected = generated_by_transformers(model, request.prompt, request.sampling.max_new_tokens)
        assert output.tokens == expected


def test_every_known_family_is_tried_here() -> None:
    tried = {random_model(name).config.model_type for name in CONFIGURATIONS}
    assert tried == set(table.FAMILIES)


def test_an_unknown_family_is_refused_with_what_to_do() -> None:
    model = random_model("llama")
    model.config.model_type = "mystery"
    with pytest.raises(TargetRefusedError, match=r"'mystery' are not known \(known: llama, .*FAMILIES"):
        read_architecture(model)


@pytest.mark.parametrize(
    ("field", "value"), [("layers", "blocks"), ("final_norm", "norm_f"), ("decoder", "transformer"), ("mlp", "ffn")]
)
def test_a_row_that_names_no_part_is_refused(monkeypatch: pytest.MonkeyPatch, field: str, value: str) -> None:
    wrong: dict[str, Any] = {field: value}
    monkeypatch.setitem(table.FAMILIES, "llama", dataclasses.replace(table.FAMILIES["llama"], **wrong))
    with pytest.raises(TargetRefusedError, match=f"lacks a part.*{value}"):
        read_architecture(random_model("llama"))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gemma2", {"attention": "self_attn"}),
        ("gemma2", {"mlp": "mlp"}),
        ("olmo2", {"attention": "self_attn", "mlp": "mlp"}),
        ("olmo3", {"mlp": "mlp"}),
        ("llama", {"mlp": "post_attention_layernorm"}),
        ("llama", {"mlp": "mlp.gate_proj"}),
        ("llama", {"attention": "input_layernorm"}),
        ("llama", {"attention": "self_attn.q_proj"}),
        ("llama", {"attention": "mlp"}),
        ("llama", {"final_norm": "layers.0.input_layernorm"}),
        ("gpt2", {"final_norm": "h.0.ln_1"}),
        ("gpt_neox parallel", {"attention": "input_layernorm"}),
    ],
)
def test_a_row_that_names_a_wrong_part_is_caught_at_load(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: dict[str, Any]
) -> None:
    model = random_model(name)
    kind = model.config.model_type
    monkeypatch.setitem(table.FAMILIES, kind, dataclasses.replace(table.FAMILIES[kind], **wrong))
    architecture = read_architecture(model)
    runner = Engine(architecture, stop_tokens=frozenset(), batch_tokens=100).runner
    with pytest.raises(TargetRefusedError, match=f"models of type '{kind}' do not describe"):
        check_model(architecture, runner)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "qwen2 with windows", "olmo3"])
def test_windows_matter_in_these_models(name: str) -> None:
    # Otherwise the tests above would pass with any window.
    model, wide = random_model(name), random_model(name)
    for layer in wide.get_decoder().layers:
        layer.self_attn.sliding_window = CONTEXT
    wide.config.sliding_window = CONTEXT
    ids = torch.tensor([PROMPTS[-1]])
    assert not torch.allclose(model(input_ids=ids).logits, wide(input_ids=ids).logits)
