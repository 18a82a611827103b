"""Row 6: the strongest features of a sparse autoencoder."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Model, Work
from benchmarks.peers import keep_equal, module
from benchmarks.plan import Plan
from benchmarks.rounds import Variant, interleave
from benchmarks.table import Row, Target, row
from marple.tools.saes.sae import SAE
from marple.tools.saes.weights import Weights

__all__ = ["sae_rows"]


def sae_rows(plan: Plan) -> list[Row]:
    """Encode and take the top features: at all tokens, and at one token of each of sixteen prompts."""
    model, work = plan.model, plan.work
    weights = random_weights(model, work)
    ours = SAE("standard", Weights(**weights), hook_name="blocks.0.hook_resid_post")
    peers = saelens(model, work, weights) if plan.peers else {}
    prepare = partial(_inputs, model, work)
    checked = check_features(ours, weights, work.sae_k, prepare(0), peers)
    k, last = work.sae_k, slice(0, None, max(1, work.sae_tokens // 16))
    variants = {
        "relu + top-k": Variant(lambda x: plain(weights, x, k)),
        "ours": Variant(lambda x: ours.top(x, k)),
        "ours, last tokens": Variant(lambda x: ours.top(x[last], k), repeats=5),
        "matmul alone": Variant(lambda x: x @ weights["W_enc"]),
        **{name: Variant(partial(_encoded, sae, k)) for name, sae in peers.items()},
    }
    timings = interleave(variants, rounds=plan.rounds, prepare=prepare)
    size = f"{work.sae_tokens} tokens, {model.shape.d_model} to {work.sae_width}"
    clock = model.clock
    return [
        row(
            f"SAE encode + top-{k}, {size}",
            timings,
            Target(0.75),
            floor="relu + top-k",
            floor_is="relu + top-k",
            clock=clock,
            peers=("matmul alone", *peers),
            checked=checked,
        ),
        row(
            f"SAE encode + top-{k}, last tokens of 16 prompts only",
            timings,
            Target(0.05),
            floor="relu + top-k",
            floor_is="relu + top-k of all tokens",
            clock=clock,
            ours="ours, last tokens",
            peers=(),
        ),
    ]


def random_weights(model: Model, work: Work) -> dict[str, Tensor]:
    """A standard SAE's tensors."""
    d_in, d_sae = model.shape.d_model, work.sae_width
    drawn = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    return {
        name: (torch.randn(shape, generator=model.generator) / d_in**0.5).to(model.device)
        for name, shape in drawn.items()
    }


def saelens(model: Model, work: Work, weights: dict[str, Tensor]) -> dict[str, Any]:
    """SAELens' SAEs of three architectures with the same weights, where it is installed."""
    library = module("sae_lens")
    if library is None:
        return {}
    settings: dict[str, Any] = {
        "d_in": model.shape.d_model,
        "d_sae": work.sae_width,
        "dtype": "float32",
        "device": model.device,
    }
    kinds = {
        "SAELens standard": (library.StandardSAE, library.StandardSAEConfig, {}),
        "SAELens JumpReLU": (library.JumpReLUSAE, library.JumpReLUSAEConfig, {}),
        "SAELens TopK": (
            library.TopKSAE,
            library.TopKSAEConfig,
            {"k": work.sae_k, "rescale_acts_by_decoder_norm": False},
        ),
    }
    made = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (kind, config, more) in kinds.items():
            made[name] = kind(config(**settings, apply_b_dec_to_input=True, **more))
            for parameter, value in made[name].named_parameters():
                value.data.copy_(weights.get(parameter, torch.zeros_like(value)))
    return made


def check_features(ours: SAE, weights: dict[str, Tensor], k: int, x: Tensor, peers: dict[str, Any]) -> str:
    """The same features with the same values as the floor, or an error; a peer with others is left out."""
    expected, _ = plain(weights, x, k)
    dense = torch.relu((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])

    def same(found: tuple[Tensor, Tensor]) -> bool:
        # Indices are compared by what they point at, so that ties may fall either way.
        values, indices = found
        return all(torch.allclose(got, expected, atol=1e-4, rtol=1e-3) for got in (values, dense.gather(1, indices)))

    for name, sae in list(peers.items()):
        keep_equal(peers, name, partial(_encoded, sae, k, x), same)
    if not same(ours.top(x, k)):
        raise AssertionError("ours finds other features than relu and top-k")
    return "values and indices equal to relu + top-k"


@torch.no_grad()
def plain(weights: dict[str, Tensor], x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    dense = torch.relu((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])
    values, indices = dense.topk(k)
    return values, indices


@torch.no_grad()
def _encoded(sae: Any, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
    values, indices = sae.encode(x).topk(k)
    return values, indices


def _inputs(model: Model, work: Work, number: int) -> Tensor:
    return torch.randn(work.sae_tokens, model.shape.d_model, generator=model.generator).to(model.device)
