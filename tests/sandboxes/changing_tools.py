"""A tool that does what no tool may: it changes what it measures."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from marple.tools.contract import ToolResult, tool


@tool(rung=1)
def change(target, *, seed: int, what: str) -> ToolResult:
    """Change something for good.

    Args:
        what: the thing.

    Example:
        {"what": "the reference"}
    """
    name, sae = next(iter(target.saes.items()), ("", target))
    parameters = dict(target.model.named_parameters())
    first = parameters["model.layers.0.mlp.down_proj.weight"] if not what.startswith("a ") else None
    if what == "one bit of the target":
        flip(first)
    elif what == "a buffer of the target":
        flip(next(iter(target.model.buffers())))
    elif what == "the type of the target":
        target.model.to(torch.bfloat16)
    elif what == "an exchange of two equal shapes":
        layer = target.model.model.layers[0].self_attn
        layer.k_proj.weight, layer.v_proj.weight = layer.v_proj.weight, layer.k_proj.weight
    elif what == "the reference":
        flip(next(target.reference.model.parameters()))
    elif what == "the autoencoder":
        flip(sae.weights.W_dec)
    elif what == "another autoencoder":
        target.saes[name] = dataclasses.replace(
            sae, weights=dataclasses.replace(sae.weights, W_enc=sae.weights.W_enc + 1)
        )
    elif what == "a factor of the adapter":
        flip(next(value for key, value in parameters.items() if ".lora_" in key))
    elif what == "a weight below the adapter":
        flip(next(value for key, value in parameters.items() if "base_layer" in key))
    elif what == "and back":
        flip(first)
        flip(first)
    return ToolResult(text="")


def flip(tensor: Any) -> None:
    """Turn over the lowest bit of the first number."""
    tensor.detach().reshape(-1).view(torch.uint8)[0] ^= 1
