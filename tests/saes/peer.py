"""Run by an interpreter that has SAELens: write SAEs with it, or read what was written here, and say what it computes.

Usage: ``peer.py write FOLDER`` makes one directory for each architecture; ``peer.py read FOLDER`` reads those under it.
Either way each gets an ``expected.safetensors`` with activations ``x``, features and reconstruction.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

# By name, because most environments do not have it.
SAE = importlib.import_module("sae_lens").SAE
get_sae_class = importlib.import_module("sae_lens.registry").get_sae_class

SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {},
    "standard_without_bias": {"apply_b_dec_to_input": False},
    "standard_layer_norm": {"normalize_activations": "layer_norm"},
    "standard_constant_norm": {"normalize_activations": "constant_norm_rescale"},
    "topk": {"k": 5},
    "topk_rescaled": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "jumprelu": {},
    "gated": {},
    "transcoder": {"apply_b_dec_to_input": False, "d_out": 12},
    "skip_transcoder": {"apply_b_dec_to_input": False, "d_out": 12},
    "jumprelu_transcoder": {"apply_b_dec_to_input": False, "d_out": 12},
}
METADATA = {"hook_name": "blocks.1.hook_resid_post", "model_name": "peer"}


def tell(sae: Any, folder: Path) -> None:
    x = torch.randn(30, sae.cfg.d_in, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = sae.encode(x)
        told = {"x": x, "features": features, "out": sae(x)}
    save_file({name: value.contiguous() for name, value in told.items()}, folder / "expected.safetensors")


def write(root: Path) -> None:
    torch.manual_seed(0)
    for name, settings in SETTINGS.items():
        architecture = name if name.endswith("transcoder") else name.partition("_")[0]
        sae_class, config_class = get_sae_class(architecture)
        config = config_class(d_in=12, d_sae=40, **settings)
        for key, value in METADATA.items():
            config.metadata[key] = value
        sae = sae_class(config)
        for parameter in sae.parameters():
            parameter.data = torch.randn_like(parameter) * 0.7
        sae.save_model(root / name)
        tell(sae, root / name)


if __name__ == "__main__":
    verb, root = sys.argv[1], Path(sys.argv[2])
    if verb == "write":
        write(root)
    else:
        for folder in sorted(root.iterdir()):
            tell(SAE.load_from_disk(folder), folder)
