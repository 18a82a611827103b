"""Gradients and the lens in every family of models: scaled embeddings, learned positions, soft caps, two at once."""

import pytest
import torch

from marple.tools.attribution.estimates import measure
from marple.tools.attribution.gradients import Metric, input_states, path_gradients, path_points
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site
from marple.tools.lenses import lens_of_directions, read_lens
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target
from tests.engine.families import CONFIGURATIONS, LAYERS, random_model

PROMPT, OTHER = [7, 22, 13, 30, 5, 18, 9, 26], [7, 22, 31, 30, 5, 11, 9, 26]
METRICS = [Metric((12,), 33), Metric((12, 33))]
SITES = [Site(layer, name) for layer in (0, LAYERS - 1) for name in ("resid_pre", "resid_post", "attn_out", "mlp_out")]


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def target(request: pytest.FixtureRequest) -> Target:
    return Target(random_model(request.param).double(), tiny_target().tokenizer)


def test_the_last_layer_is_the_models_own_prediction(target: Target) -> None:
    reading = read_lens(target, PROMPT, layers=[LAYERS - 1], positions=[len(PROMPT) - 1], top=5)
    expected = target.next_logits([PROMPT])[0].softmax(-1).topk(5)
    assert torch.equal(reading.tokens[0, 0], expected.indices)
    torch.testing.assert_close(reading.probabilities[0, 0].float(), expected.values)


@pytest.mark.parametrize("metric", METRICS, ids=["logits", "log-probability"])
def test_gradients_equal_finite_differences(target: Target, metric: Metric) -> None:
    inputs = input_states(target, [metric.tokens(PROMPT)])[0]
    found = path_gradients(target, PROMPT, metric, start=inputs, end=inputs, points=[0.0], sites=SITES)
    unmoved = measure(target, [PROMPT], metric, [[]])[0]
    assert float(found.values[0]) == pytest.approx(float(unmoved), abs=1e-4)
    generator = torch.Generator().manual_seed(1)
    for site in SITES:
        position = len(PROMPT) - 1
        direction = 2e-3 * torch.nn.functional.normalize(torch.randn(target.d_model, generator=generator), dim=0)
        edits = [
            [Intervention(site, sign * direction, phases=("prompt",), positions=(position,))] for sign in (1.0, -1.0)
        ]
        ahead, behind = measure(target, [PROMPT] * 2, metric, edits).tolist()
        assert (ahead - behind) / 2 == pytest.approx(float(found.sites[site][position] @ direction), rel=0.02, abs=4e-5)


def test_shares_of_inputs_sum_to_their_effect(target: Target) -> None:
    metric = METRICS[0]
    end, start = input_states(target, [PROMPT, OTHER])
    found = path_gradients(target, PROMPT, metric, start=start, end=end, points=path_points(150))
    shares = ((end - start) * found.inputs).sum(-1)
    ends = path_gradients(target, PROMPT, metric, start=start, end=end, points=[0.0, 1.0]).values
    # What the inputs do is what the tokens do, so nothing that depends on the tokens is beside them.
    logits = target.next_logits([OTHER, PROMPT])
    torch.testing.assert_close(ends, logits[:, 12] - logits[:, 33], atol=1e-4, rtol=1e-4)
    assert float(shares.sum()) == pytest.approx(float(ends[1] - ends[0]), rel=0.05, abs=0.02)
    assert {at for at, share in enumerate(shares.tolist()) if share} == {2, 5}


def test_no_direction_has_no_bias(target: Target) -> None:
    direction = torch.randn(1, target.d_model, generator=torch.Generator().manual_seed(0))
    there, back = lens_of_directions(target, torch.cat([1e-3 * direction, -1e-3 * direction]))
    assert float(torch.corrcoef(torch.stack([there, back]))[0, 1]) < -0.9
