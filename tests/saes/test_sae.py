"""An SAE encodes by the formulas of the papers, and its fast path gives the same."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.errors import ToolError, UsageError
from marple.tools.saes.sae import SAE
from marple.tools.saes.topk import exact_topk
from marple.tools.saes.weights import Weights
from marple.tools.target.tiny import tiny_target
from tests.saes.conftest import random_weights

KINDS = ["standard", "jumprelu", "topk", "gated"]


def make(kind: str, **settings_: Any) -> SAE:
    extra: dict[str, Any] = {"jumprelu": {"threshold": (40,)}, "gated": {"b_gate": (40,), "r_mag": (40,)}}.get(kind, {})
    weights = Weights.from_tensors(random_weights(**extra))
    return SAE(architecture=kind, weights=weights, k=5 if kind == "topk" else None, **settings_)  # type: ignore[arg-type]


def by_hand(sae: SAE, x: torch.Tensor) -> torch.Tensor:
    """The published formulas, unfolded."""
    w = sae.weights
    z = (x - w.b_dec * sae.apply_b_dec_to_input) @ w.W_enc
    if sae.architecture == "gated":
        assert w.r_mag is not None
        assert w.b_gate is not None
        return (z + w.b_gate > 0) * torch.relu(z * w.r_mag.exp() + w.b_enc)
    pre = z + w.b_enc
    if sae.architecture == "jumprelu":
        assert w.threshold is not None
        return torch.relu(pre) * (pre > w.threshold)
    if sae.architecture == "topk":
        assert sae.k is not None
        return torch.relu(pre) * (pre >= pre.topk(sae.k).values[..., -1:])
    return torch.relu(pre)


@pytest.mark.parametrize("bias_from_input", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_encoding_is_the_published_formula(kind: str, bias_from_input: bool, x: torch.Tensor) -> None:
    sae = make(kind, apply_b_dec_to_input=bias_from_input)
    expected = by_hand(sae, x)
    torch.testing.assert_close(sae.encode(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        sae.reconstruct(x), expected @ sae.weights.W_dec + sae.weights.b_dec, atol=1e-4, rtol=1e-4
    )
    assert 0 < (expected > 0).float().mean() < 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_the_strongest_features_are_those_of_the_dense_encoding(kind: str, x: torch.Tensor) -> None:
    sae = make(kind)
    values, indices = sae.top(x, 4)
    dense = sae.encode(x)
    torch.testing.assert_close(values, dense.topk(4).values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dense.gather(-1, indices), values, atol=1e-5, rtol=1e-5)


def test_a_topk_sae_never_has_more_than_its_k(x: torch.Tensor) -> None:
    assert make("topk").top(x, 30)[0].shape == (2, 5, 5)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 7),
    groups=st.integers(1, 40),
    k=st.integers(1, 6),
    levels=st.integers(1, 1000),
    seed=st.integers(0, 10**6),
)
def test_the_search_in_groups_is_exact(rows: int, groups: int, k: int, levels: int, seed: int) -> None:
    # Few levels make ties, whose values must agree though their places may not.
    values = torch.randint(-levels, levels, (rows, 16 * groups), generator=torch.Generator().manual_seed(seed)).float()
    found, at = exact_topk(values, k)
    torch.testing.assert_close(found, values.topk(k).values)
    torch.testing.assert_close(values.gather(1, at), found)
    assert all(len(set(row)) == k for row in at.tolist())


@pytest.mark.parametrize("normalization", ["layer_norm", "constant_norm_rescale"])
def test_normalized_input_is_undone_in_the_reconstruction(normalization: str, x: torch.Tensor) -> None:
    sae = make("standard", normalize_activations=normalization)
    if normalization == "layer_norm":
        shift, scale = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        inner = (x - shift) / (scale + 1e-5)
    else:
        shift, scale = torch.zeros(()), x.norm(dim=-1, keepdim=True) / 12**0.5
        inner = x / scale
    plain = dataclasses.replace(sae, normalize_activations="none")
    torch.testing.assert_close(sae.encode(x), plain.encode(inner))
    torch.testing.assert_close(sae.reconstruct(x), plain.reconstruct(inner) * scale + shift, atol=1e-4, rtol=1e-4)
    with pytest.raises(ToolError, match="give x"):
        sae.decode(sae.encode(x))


def test_folding_leaves_the_reconstruction_alone(weights: Weights, x: torch.Tensor) -> None:
    plain = SAE(architecture="standard", weights=weights)
    unit = SAE(architecture="standard", weights=weights.fold_decoder_norm())
    torch.testing.assert_close(unit.weights.W_dec.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(unit.reconstruct(x), plain.reconstruct(x), atol=1e-4, rtol=1e-4)
    scaled = SAE(architecture="standard", weights=weights.fold_scaling(3.0))
    torch.testing.assert_close(scaled.encode(x), plain.encode(3 * x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scaled.reconstruct(x), plain.reconstruct(3 * x) / 3, atol=1e-4, rtol=1e-4)


def test_the_fingerprint_is_the_content(weights: Weights) -> None:
    sae = SAE(architecture="standard", weights=weights, hook_name="blocks.1.hook_resid_post")
    assert sae.fingerprint == dataclasses.replace(sae, metadata={"a": 1}).fingerprint
    other = {**dict(weights.items()), "b_dec": weights.b_dec + 1e-3}
    for changed in ({"weights": Weights.from_tensors(other)}, {"apply_b_dec_to_input": False}, {"hook_name": "x"}):
        assert sae.fingerprint != dataclasses.replace(sae, **changed).fingerprint


def test_tensors_that_do_not_belong_together_are_refused() -> None:
    tensors = random_weights()
    with pytest.raises(UsageError, match=r"W_dec does not fit .*W_enc \(12, 40\)"):
        Weights.from_tensors(tensors | {"W_dec": torch.zeros(12, 40)})
    with pytest.raises(UsageError, match="b_enc holds NaN"):
        Weights.from_tensors(tensors | {"b_enc": torch.full((40,), torch.nan)})
    weights = Weights.from_tensors(tensors)
    for kind, needed in (("jumprelu", "threshold"), ("gated", "b_gate"), ("topk", "k")):
        with pytest.raises(UsageError, match=needed):
            SAE(architecture=kind, weights=weights)  # type: ignore[arg-type]


def test_bad_activations_and_features_are_refused(x: torch.Tensor) -> None:
    sae = make("standard")
    with pytest.raises(ToolError, match="width 11, but this SAE reads 12"):
        sae.encode(x[..., 1:])
    with pytest.raises(ToolError, match="NaN"):
        sae.top(torch.full((3, 12), torch.inf), 2)
    with pytest.raises(ToolError, match="no feature 40; this SAE has features 0 to 39"):
        sae.check_feature(40)


def test_an_sae_of_another_model_does_not_fit() -> None:
    target = tiny_target()
    fitting = SAE(
        architecture="standard",
        weights=Weights.from_tensors(random_weights(d_in=32)),
        hook_name="blocks.1.hook_resid_post",
        metadata={"model_name": "tiny"},
    )
    assert str(fitting.check_fits(target)) == "blocks.1.hook_resid_post"
    for changed, message in (
        (
            {"weights": Weights.from_tensors(random_weights(d_in=16))},
            r"width 16.*d_model is 32.*another model \(tiny\)",
        ),
        ({"hook_name": "blocks.2.hook_resid_post"}, "layers are 0 to 1"),
        ({"hook_name": "blocks.1.attn.hook_z"}, "which the engine has not"),
        ({"hook_name": ""}, "unknown site"),
        ({"hook_name_out": "blocks.1.hook_mlp_out"}, "transcoder"),
    ):
        with pytest.raises(ToolError, match=message):
            dataclasses.replace(fitting, **changed).check_fits(target)


def test_no_rows_are_no_features() -> None:
    sae = make("standard")
    assert sae.encode(torch.zeros(0, 12)).shape == (0, 40)
    assert sae.top(torch.zeros(0, 12), 3)[1].shape == (0, 3)
