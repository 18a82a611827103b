"""A tiny target with an SAE whose features are known, for self-tests and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from marple.tools.saes.sae import SAE
from marple.tools.saes.weights import Weights
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target

__all__ = ["planted_target"]


def planted_target(
    words: Sequence[str], *, where: Literal["embedding", "head"] = "embedding", reference: Target | None = None
) -> Target:
    """A tiny target with one SAE, called ``planted``, whose feature i belongs to word i (with a space before it).

    Args:
        words: up to six of the tiny target's words.
        where: ``embedding``: the features read the first layer's input, fire on their word's token with activation
            0.25 and decode to its embedding. ``head``: they read the last layer's output, and their decoder rows raise
            their word's logit.
        reference: put beside it.
    """
    target = tiny_target(reference=reference)
    tokens = [target.tokenizer.convert_tokens_to_ids(f" {word}") for word in words]
    table = target.model.get_input_embeddings() if where == "embedding" else target.model.get_output_embeddings()
    rows = table.weight.detach()[tokens].float().clone()
    # Dimension 0 is the same at every token, and carries the tiny target's own biases.
    rows[:, 0] = 0
    if where == "embedding":
        # The pseudoinverse answers 1 to a row's own word and 0 to the others'; the bias holds down all other tokens.
        encoder, bias, hook = torch.linalg.pinv(rows), -0.75, "blocks.0.hook_resid_pre"
    else:
        rows = torch.nn.functional.normalize(rows)
        encoder, bias, hook = rows.T, 0.0, f"blocks.{target.layers - 1}.hook_resid_post"
    weights = Weights(
        W_enc=encoder, W_dec=rows, b_enc=torch.full((len(words),), bias), b_dec=torch.zeros(target.d_model)
    )
    sae = SAE(architecture="standard", weights=weights, apply_b_dec_to_input=False, hook_name=hook)
    target.saes = {"planted": sae}
    return target
