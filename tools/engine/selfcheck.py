"""Whether a row of the architecture table describes the model: asked of every model when it is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from marple.errors import TargetRefusedError
from marple.tools.engine.architecture import Architecture
from marple.tools.engine.edits import RowWindow
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.passes import Pass, Runner, Tap
from marple.tools.engine.sites import SITE_NAMES, Site

__all__ = ["SelfCheck", "check_model"]

_TOKENS = 8


@dataclass(frozen=True)
class SelfCheck:
    """What was compared, and the largest absolute differences; all but the logits' must be 0."""

    hidden_states: float
    """Captured stream against ``output_hidden_states``, all layers but the last (whose entry is normed there)."""
    parts: float
    """Stream behind each layer against its input plus what attention and MLP add, as a share of its size."""
    lens_of_last_layer: float
    """Final norm and head of the last layer's stream against the model's own logits, as a share of their size."""
    zero_vector: float
    """Logits with a zero vector added everywhere against those without."""

    def to_dict(self) -> dict[str, float]:
        """As JSON values."""
        return dict(vars(self))


@torch.no_grad()
def check_model(architecture: Architecture, runner: Runner) -> SelfCheck:
    """Compare what the table says with what the model computes, on a few tokens.

    Raises:
        TargetRefusedError: they differ.
    """
    layers, vocab = len(architecture.layers), int(architecture.model.config.get_text_config().vocab_size)
    tokens = tuple((7 * at + 3) % vocab for at in range(_TOKENS))
    window = RowWindow((), _TOKENS, 0, tokens)
    sites = [Site(0, "resid_pre"), *(Site(at, "resid_post") for at in range(layers))]
    added = [Site(at, name) for at in range(layers) for name in SITE_NAMES if name in ("attn_out", "mlp_out")]
    taps = [Tap(site, False, (0,) * _TOKENS, tuple(range(_TOKENS))) for site in (*sites, *added)]
    work = Pass([window], taps=taps)
    hidden = runner.run(work)
    assert hidden is not None
    read = {tap.site: value for tap, value in work.read.items()}
    ids = torch.tensor([tokens], device=runner.device)
    theirs = architecture.model(input_ids=ids, output_hidden_states=True, use_cache=False)
    pairs = list(zip(sites[:layers], theirs.hidden_states, strict=False))
    zero = torch.zeros(architecture.d_model)
    edits = tuple(Intervention(site, zero) for site in sites)
    again = runner.run(Pass([RowWindow(edits, _TOKENS, 0, tokens)]))
    assert again is not None
    logits = architecture.head(hidden)
    found = SelfCheck(
        hidden_states=max(float((read[site] - other[0]).abs().max()) for site, other in pairs),
        parts=max(_parts(read, at) for at in range(layers)),
        lens_of_last_layer=_share(architecture.lens(read[sites[-1]]) - theirs.logits[0], theirs.logits[0]),
        zero_vector=float((architecture.head(again) - logits).abs().max()),
    )
    _judge(found, architecture)
    return found


def _parts(read: dict[Site, torch.Tensor], layer: int) -> float:
    before = read[Site(0, "resid_pre")] if layer == 0 else read[Site(layer - 1, "resid_post")]
    after = read[Site(layer, "resid_post")]
    if any(read[Site(layer, name)].shape != after.shape for name in ("attn_out", "mlp_out")):
        return math.inf
    return _share(before + read[Site(layer, "attn_out")] + read[Site(layer, "mlp_out")] - after, after)


def _share(difference: torch.Tensor, size: torch.Tensor) -> float:
    return float(difference.float().abs().max() / size.float().abs().max().clamp(min=1e-30))


def _judge(found: SelfCheck, architecture: Architecture) -> None:
    kind = architecture.model.config.model_type
    close = 1e-4 if architecture.model.dtype == torch.float32 else 3e-2
    wrong = [
        name
        for name, value in found.to_dict().items()
        if not value <= (0.0 if name in ("hidden_states", "zero_vector") else close)
    ]
    if wrong:
        shown = ", ".join(f"{name} differs by {getattr(found, name):.3g}" for name in wrong)
        raise TargetRefusedError(
            f"the parts known for models of type {kind!r} do not describe this model ({shown}); its row is in "
            "FAMILIES of marple/tools/engine/architecture.py"
        )
