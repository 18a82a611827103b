import json
from typing import Any

import pytest
import torch

from marple.errors import ToolError
from marple.tools.attribution import report
from marple.tools.attribution.estimates import Estimate, cells_to_check, estimate_patches, measure, random_control
from marple.tools.attribution.gradients import Metric, input_states, path_gradients, path_points
from marple.tools.contract import ToolResult, tool_spec
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site
from marple.tools.experiments.attribute import attribute
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target
from tests.mechanisms.conftest import SUBJECT, TRIGGER

SPEC = tool_spec(attribute)
CLEAN, CORRUPTED = f"see the {TRIGGER} and the old house", "see the stone and the old house"
ASKED = {"prompt": CLEAN, "answer": f" {SUBJECT}", "chat": False}
SITES = [Site(layer, name) for layer in (0, 1) for name in ("resid_pre", "resid_post", "attn_out", "mlp_out")]


def call(target: Target, seed: int = 1, **given: Any) -> ToolResult:
    result = SPEC.run(target, {**ASKED, **given}, seed=seed)
    json.dumps([result.data, result.controls], allow_nan=False)
    assert 0 < len(result.text) <= 4000
    assert result.artifacts[0].data.startswith(b"\x89PNG")
    return result


def metrics(target: Target) -> list[Metric]:
    token = target.tokenizer.convert_tokens_to_ids
    lamp, cat, red = (token(f" {word}") for word in (SUBJECT, "cat", "red"))
    return [Metric((lamp,), cat), Metric((lamp,)), Metric((lamp, red, cat))]


@pytest.mark.parametrize("which", range(3))
def test_gradients_equal_finite_differences(plain: Target, which: int) -> None:
    metric, prompt = metrics(plain)[which], plain.encode(CLEAN)
    inputs = input_states(plain, [metric.tokens(prompt)])[0]
    found = path_gradients(plain, prompt, metric, start=inputs, end=inputs, points=[0.0], sites=SITES)
    generator = torch.Generator().manual_seed(which)
    unmoved = measure(plain, [prompt], metric, [[]])[0]
    assert float(found.values[0]) == pytest.approx(float(unmoved), abs=1e-4)
    for site in SITES:
        for position in (2, len(prompt) - 1):
            direction = torch.randn(plain.d_model, generator=generator)
            direction = direction / direction.norm() * 0.02
            edits = [
                [Intervention(site, sign * direction, phases=("prompt",), positions=(position,))]
                for sign in (1.0, -1.0)
            ]
            ahead, behind = measure(plain, [prompt] * 2, metric, edits).tolist()
            slope = float(found.sites[site][position] @ direction)
            assert (ahead - behind) / 2 == pytest.approx(slope, abs=3e-4, rel=0.03), site
    torch.testing.assert_close(found.inputs, found.sites[Site(0, "resid_pre")])


def test_gradients_on_a_line_are_averaged_over_its_points(plain: Target) -> None:
    metric, prompt = metrics(plain)[0], plain.encode(CLEAN)
    start, end = input_states(plain, [plain.encode(CORRUPTED), prompt])
    many = path_gradients(plain, prompt, metric, start=start, end=end, points=[0.25, 0.75], sites=SITES[:2])
    single = [
        path_gradients(plain, prompt, metric, start=start, end=end, points=[one], sites=SITES[:2])
        for one in (0.25, 0.75)
    ]
    torch.testing.assert_close(many.values, torch.cat([one.values for one in single]))
    torch.testing.assert_close(many.inputs, (single[0].inputs + single[1].inputs) / 2)
    for site in SITES[:2]:
        torch.testing.assert_close(many.sites[site], (single[0].sites[site] + single[1].sites[site]) / 2)
    assert path_points(4) == [0.125, 0.375, 0.625, 0.875]


@pytest.mark.parametrize("given", [{}, {"other": " cat"}, {"corrupted": CORRUPTED}, {"answer": " lamp red cat"}])
def test_integrated_gradients_are_complete(planted: Target, given: dict[str, Any]) -> None:
    result = call(planted, steps=256, **given)
    assert result.controls["completeness_error"] < 0.01
    shares = [row["attribution"] for row in result.data["tokens"]]
    assert sum(shares) == pytest.approx(result.data["sum"], abs=1e-4)
    assert result.data["sum"] == pytest.approx(result.data["measured"], rel=0.01)


def test_too_few_steps_are_told(planted: Target) -> None:
    result = call(planted, steps=1, corrupted=CORRUPTED)
    assert result.controls["completeness_error"] > 0.05
    assert "use more steps" in result.text


def test_the_planted_word_has_the_largest_share(planted: Target) -> None:
    result = call(planted, other=" cat", corrupted=CORRUPTED)
    row = max(result.data["tokens"], key=lambda row: row["attribution"])
    assert row["token"].strip() == TRIGGER
    assert row["attribution"] > row["random_control"]
    assert row["measured"] == pytest.approx(result.data["measured"], rel=1e-3)
    assert result.controls["agreement_with_replacement"] > 0.99


def nearly_linear() -> Target:
    """Without attention and MLP, and with one large constant that keeps the norm from changing."""
    target = tiny_target(seed=4)
    with torch.no_grad():
        target.model.model.embed_tokens.weight[:, 0] = 2000.0
        target.model.lm_head.weight *= 100
        for layer in target.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return target


def test_on_a_linear_model_the_estimate_is_the_patch() -> None:
    target = nearly_linear()
    clean, corrupted = (target.encode(text) for text in ("see the old river", "see the old stone"))
    sites = [Site(layer, "resid_post") for layer in (0, 1)]
    for steps in (1, 4):
        found = estimate_patches(
            target, clean, corrupted, metrics(target)[0], sites=sites, positions=[-2, -1], steps=steps, check=2, seed=0
        )
        assert abs(found.measured) > 0.1
        assert len(found.checked) == 4
        for row, column, value in found.checked:
            assert float(found.effect[row, column]) == pytest.approx(value, abs=2e-3 * abs(found.measured) + 1e-4)
        assert found.effect[:, 1].tolist() == pytest.approx([found.measured] * 2, rel=0.01)
        assert found.effect[:, 0].tolist() == [0, 0]


def test_one_step_takes_the_gradient_of_the_corrupted_run(plain: Target) -> None:
    metric, site = metrics(plain)[0], Site(0, "resid_post")
    clean, corrupted = plain.encode(CLEAN), plain.encode(CORRUPTED)
    found = estimate_patches(plain, clean, corrupted, metric, sites=[site], positions=[-1], steps=1, check=1, seed=0)
    there = input_states(plain, [corrupted])[0]
    slope = path_gradients(plain, corrupted, metric, start=there, end=there, points=[0.0], sites=[site]).sites[site]
    states = plain.capture([clean, corrupted], [site])[site]
    assert float(found.effect[0, 0]) == pytest.approx(float((states[0] - states[1]) @ slope[-1]), rel=1e-3)


def test_averaged_gradients_find_what_one_gradient_misses(planted: Target) -> None:
    given: dict[str, Any] = {"corrupted": CORRUPTED, "other": " cat", "method": "patching"}
    once, averaged = (call(planted, steps=steps, **given) for steps in (1, 16))
    error = []
    for result in (once, averaged):
        error.append(sum(abs(cell["estimate"] - cell["measured"]) for cell in result.data["checked"]))
    assert error[1] < error[0]
    assert averaged.controls["agreement_with_replacement"] > 0.9


def test_checked_cells_are_measured_by_real_patches(planted: Target) -> None:
    result = call(planted, corrupted=CORRUPTED, other=" cat", method="patching", layers=[1])
    assert len(result.data["checked"]) == 5
    last = next(cell for cell in result.data["checked"] if cell["position"] == -1)
    assert last["measured"] == pytest.approx(result.data["measured_in_all"], rel=1e-3)
    assert all(
        cell["measured"] == pytest.approx(0, abs=1e-4) for cell in result.data["checked"] if cell["position"] != -1
    )
    estimate = result.data["estimate"][0][last["position"]]
    assert last["estimate"] == pytest.approx(estimate)


def test_the_random_control_is_that_of_random_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(3, 400, generator=generator)
    change = torch.randn(3, 400, generator=generator)
    control = random_control(change, gradient, generator)
    expected = 1.96 * gradient.norm(dim=-1) * change.norm(dim=-1) / 20
    torch.testing.assert_close(control, expected, rtol=0.15, atol=0)


def test_the_largest_cells_and_others_are_checked() -> None:
    effect = torch.tensor([[0.0, -5.0, 0.1], [3.0, 0.2, 0.3]])
    cells = cells_to_check(effect, 2, torch.Generator().manual_seed(0))
    assert cells[:2] == [(0, 1), (1, 0)]
    assert len(set(cells)) == 4
    assert len(set(cells_to_check(effect, 10, torch.Generator()))) == 6


def overruled(effect: list[float], measured: list[float]) -> Estimate:
    return Estimate(
        torch.tensor([effect]), torch.full((1, len(effect)), 2.0), [(0, at, v) for at, v in enumerate(measured)], 1.0
    )


def test_a_low_agreement_is_said_first() -> None:
    wrong = overruled([3.0, 2.0, -0.5, 0.1], [0.0, 0.1, 10.0, 0.2])
    assert not report.trusted(wrong)
    assert next(report.warnings(wrong, None)).startswith(
        "do not trust the estimates here: they and real replacements of 4"
    )
    right = overruled([3.0, 2.0, -0.5, 0.1], [3.1, 1.8, -0.5, 0.2])
    assert report.trusted(right)
    assert next(report.warnings(right, None)).startswith("estimates and real replacements of 4 cells correlate 1.00")


def test_measured_effects_decide_the_order_where_estimates_fail(planted: Target) -> None:
    """One of two triggers does alone what both do, so that their shares are not what replacing one takes away."""
    result = call(planted, prompt=f"see the {TRIGGER} and the {TRIGGER}")
    rows = result.data["tokens"]
    assert all(row["measured"] is not None for row in rows)
    assert result.controls["cells_checked"] == len(rows)
    assert result.controls["agreement_with_replacement"] < 0.8
    assert result.text.startswith("do not trust the estimates here")
    shown = [int(line.split()[1]) for line in result.text.splitlines() if line.startswith("  position")]
    assert shown == sorted(shown, key=lambda at: -abs(rows[at]["measured"]))
    assert shown[0] != max(shown, key=lambda at: abs(rows[at]["attribution"]))


def test_a_long_prompt_is_measured_in_part(planted: Target) -> None:
    result = call(planted, prompt=f"see the {TRIGGER} " + "and the old house " * 20, steps=4)
    assert result.controls["cells_checked"] == 20
    assert sum(row["measured"] is not None for row in result.data["tokens"]) == 20


def test_where_estimates_hold_they_decide_the_order(planted: Target) -> None:
    result = call(planted, other=" cat", corrupted=CORRUPTED)
    assert result.text.startswith("estimates and real replacements")
    first = next(line for line in result.text.splitlines() if line.startswith("  position"))
    assert f'" {TRIGGER}"' in first


def test_an_empty_prefill_is_none(planted: Target) -> None:
    given: dict[str, Any] = {"chat": True, "steps": 4}
    assert call(planted, prefill="", **given).data == call(planted, **given).data


def test_agreement_is_the_correlation_and_none_where_nothing_varies() -> None:
    effect = torch.tensor([[1.0, 2.0, 3.0]])
    checked = [(0, at, value) for at, value in enumerate((2.0, 4.0, 7.0))]
    expected = float(torch.corrcoef(torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 7.0]]))[0, 1])
    assert Estimate(effect, effect, checked, 1.0).agreement == pytest.approx(expected)
    assert Estimate(effect, effect, [(0, at, 1.0) for at in range(3)], 1.0).agreement is None
    assert Estimate(effect, effect, checked[:2], 1.0).agreement is None


def test_gradients_leave_the_model_as_it_was(planted: Target) -> None:
    digest = planted.weights_sha256()
    ids = planted.encode(CLEAN)
    before = planted.next_logits([ids])
    call(planted, other=" cat")
    planted.engine.forget()
    torch.testing.assert_close(planted.next_logits([ids]), before)
    assert planted.weights_sha256() == digest
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in planted.model.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "patching"}, "needs corrupted"),
        ({"corrupted": "see the very good stone"}, "positions do not correspond"),
        ({"corrupted": CLEAN, "method": "patching"}, "the same tokens"),
        (
            {"corrupted": "see the old stone and the old house", "method": "patching", "positions": [-1]},
            "must have equally many",
        ),
        ({"other": f" {SUBJECT}"}, "begin with the same token"),
        ({"answer": " "}, "has no tokens"),
        ({"corrupted": CORRUPTED, "method": "patching", "layers": [5]}, "0 to 1"),
        ({"corrupted": CORRUPTED, "method": "patching", "positions": [20]}, "outside of the prompts"),
        ({"prefill": "see"}, "need chat true"),
        ({"prompt": "see " * 255}, "context holds 256"),
        ({"site": "resid_mid"}, "site"),
    ],
)
def test_bad_arguments_are_refused(planted: Target, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        call(planted, **given)
