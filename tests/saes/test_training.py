"""Training finds planted features, and what is measured of an SAE is right where the answer is known."""

import dataclasses

import pytest
import torch
from torch.nn.functional import normalize

from marple.errors import ToolError
from marple.tools.saes.activations import collect_activations
from marple.tools.saes.evaluation import loss_recovered, reconstruction
from marple.tools.saes.sae import SAE
from marple.tools.saes.training import TrainingSettings, train_topk
from marple.tools.saes.weights import Weights
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target


def planted(
    *, tokens: int = 8000, features: int = 24, d_model: int = 20, active: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations, sums of few of the planted unit directions, off centre and on a large scale; the directions."""
    generator = torch.Generator().manual_seed(3)
    directions = normalize(torch.randn(features, d_model, generator=generator))
    chosen = torch.rand(tokens, features, generator=generator).topk(active).indices
    strength = torch.zeros(tokens, features).scatter_(1, chosen, 1 + torch.rand(tokens, active, generator=generator))
    offset = 5 * torch.randn(d_model, generator=generator)
    return 30 * (strength @ directions) + offset, directions


def best_cosines(sae: SAE, directions: torch.Tensor) -> torch.Tensor:
    return (directions @ normalize(sae.weights.W_dec).T).amax(1)


def test_training_recovers_planted_features() -> None:
    x, directions = planted()
    settings = TrainingSettings(d_sae=32, k=3, steps=1200, batch_tokens=256, lr=5e-3)
    sae = train_topk(x, settings)
    cosines = best_cosines(sae, directions)
    assert (cosines > 0.9).float().mean() > 0.9, cosines
    found = reconstruction(sae, x)
    assert found.fvu < 0.05
    assert found.l0 == pytest.approx(3, abs=0.1)
    random = train_topk(x, dataclasses.replace(settings, steps=1))
    assert (best_cosines(random, directions) > 0.9).float().mean() < 0.1


def test_dead_features_are_brought_back() -> None:
    x, _ = planted(tokens=6000)
    settings = TrainingSettings(d_sae=600, k=2, steps=300, batch_tokens=256, lr=2e-2, reseed_every=20)
    alive = 600 - reconstruction(train_topk(x, settings), x).dead
    left_alone = 600 - reconstruction(train_topk(x, dataclasses.replace(settings, reseed_every=0)), x).dead
    assert alive > left_alone


def test_training_is_reproducible_and_reports_progress() -> None:
    x, _ = planted(tokens=1000)
    settings = TrainingSettings(d_sae=22, k=2, steps=30, batch_tokens=128, seed=5)
    seen: list[tuple[int, int]] = []
    first = train_topk(x, settings, progress=lambda done, total, _: seen.append((done, total)))
    assert seen[-1] == (30, 30)
    assert first.fingerprint == train_topk(x, settings).fingerprint
    assert first.fingerprint != train_topk(x, dataclasses.replace(settings, seed=6)).fingerprint
    lengths = first.weights.W_dec.norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(22))


@pytest.mark.parametrize(
    ("changed", "tokens", "message"),
    [({}, 100, "100 tokens to train on"), ({"k": 0}, 1000, "must be from 1 to 20"), ({"k": 21}, 1000, "from 1 to 20")],
)
def test_what_cannot_be_trained_is_refused(changed: dict[str, int], tokens: int, message: str) -> None:
    settings = dataclasses.replace(TrainingSettings(d_sae=20, k=2, batch_tokens=128), **changed)
    with pytest.raises(ToolError, match=message):
        train_topk(planted(tokens=tokens)[0], settings)
    with pytest.raises(ToolError, match="NaN"):
        train_topk(torch.full((1000, 20), torch.nan), TrainingSettings(d_sae=20, k=2, batch_tokens=128))


def identity(width: int, *, hook_name: str = "", scale: float = 1.0) -> SAE:
    """An SAE that reconstructs everything: one feature for each direction of each axis."""
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    weights = Weights(both.T, scale * both, torch.zeros(2 * width), torch.zeros(width))
    return SAE(architecture="standard", weights=weights, apply_b_dec_to_input=False, hook_name=hook_name)


def test_reconstruction_is_measured_against_the_mean() -> None:
    x = torch.randn(500, 6) + 100
    assert reconstruction(identity(6), x).fvu == pytest.approx(0, abs=1e-6)
    # Half of each activation: the error is half of x, which is far larger than its variance.
    half = reconstruction(identity(6, scale=0.5), x)
    assert half.fvu == pytest.approx(float((0.25 * x.square().sum()) / (x - x.mean(0)).square().sum()), rel=1e-4)
    assert half.l0 == pytest.approx(6)
    assert half.dead == 6


@pytest.fixture(scope="module")
def tiny() -> Target:
    return tiny_target()


def test_a_perfect_reconstruction_loses_nothing_and_a_constant_one_everything(tiny: Target) -> None:
    prompts = [
        tiny.encode(text) for text in ("tell me about the red lamp", "who is the old cat", "say one and two")
    ] * 4
    for layer in (0, 1):
        perfect = loss_recovered(identity(32, hook_name=f"blocks.{layer}.hook_resid_post"), tiny, prompts)
        assert perfect.spliced == pytest.approx(perfect.clean, abs=1e-4)
        assert perfect.ablated != pytest.approx(perfect.clean, abs=1e-3)
    nothing = Weights(torch.zeros(32, 4), torch.zeros(4, 32), torch.zeros(4), torch.zeros(32))
    broken = SAE(architecture="standard", weights=nothing, hook_name="blocks.1.hook_resid_post")
    assert loss_recovered(broken, tiny, prompts).spliced != pytest.approx(perfect.clean, abs=1e-2)


def test_activations_keep_texts_apart_and_leave_the_first_token_out(tiny: Target) -> None:
    prompts = [tiny.encode("red lamp"), tiny.encode("who is the cat")]
    read = collect_activations(tiny, prompts, tiny.site("resid_post", 0))
    assert read.starts == (0, 2, 6)
    assert read.tokens.tolist() == [*prompts[0][1:], *prompts[1][1:]]
    assert [read.bounds_around(at) for at in (0, 1, 2, 5)] == [(0, 2), (0, 2), (2, 6), (2, 6)]
    alone = tiny.capture([prompts[1]], [tiny.site("resid_post", 0)], positions="all")[tiny.site("resid_post", 0)][0]
    torch.testing.assert_close(read.values[2:], alone[1:])
    assert len(collect_activations(tiny, prompts, tiny.site("resid_post", 0), most=1)) == 2
    with pytest.raises(ToolError, match="no texts"):
        collect_activations(tiny, [], tiny.site("resid_post", 0))
