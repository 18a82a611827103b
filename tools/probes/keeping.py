"""Probes as handles in the worker and as safetensors files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from marple.errors import UsageError
from marple.tools.engine.sites import Site, parse_site
from marple.tools.probes.linear import Probe
from marple.tools.probes.solvers import METHODS

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["keep_probe", "load_probe", "probe_to_bytes", "save_probe"]

_FORMAT = "marple-probe-1"


def keep_probe(target: Target, probe: Probe, *, site: Site, metadata: dict[str, Any]) -> str:
    """Keep a probe in the worker; returns its handle's name.

    Args:
        target: the model it reads.
        probe: the classifier.
        site: where it reads.
        metadata: how good it is, JSON values.
    """
    tensors = {"weight": probe.weight, "bias": torch.tensor(probe.bias)}
    return str(target.handles.put("probe", tensors, {**_told(probe, site), **metadata}))


def save_probe(path: Path, probe: Probe, *, site: Site, metadata: dict[str, Any] | None = None) -> Path:
    """Write a probe as safetensors with JSON metadata; returns the path."""
    path.write_bytes(probe_to_bytes(probe, site=site, metadata=metadata))
    return path


def probe_to_bytes(probe: Probe, *, site: Site, metadata: dict[str, Any] | None = None) -> bytes:
    """The content of such a file: tensors ``weight`` ``(d_model,)`` and ``bias`` ``(1,)``."""
    from safetensors.torch import save

    header = {"format": _FORMAT, **_told(probe, site), "metadata": metadata or {}}
    tensors = {"weight": probe.weight.contiguous(), "bias": torch.tensor([probe.bias])}
    return bytes(save(tensors, metadata={"marple": json.dumps(header, sort_keys=True)}))


def load_probe(path: Path, *, width: int | None = None) -> tuple[Probe, Site]:
    """Read a probe and the site it belongs to.

    Args:
        path: the file.
        width: required ``d_model``; None takes any.

    Raises:
        UsageError: the file is missing, no safetensors file, no probe, not finite, or of another width.
    """
    from safetensors import SafetensorError, safe_open

    where = f"probe file {str(path)!r}"
    if not path.is_file():
        raise UsageError(f"{where} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("marple", "{}"))
            names = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in ("weight", "bias") if name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{where} is no safetensors file: {str(error).partition(chr(10))[0][:200]}") from error
    if header.get("format") != _FORMAT or len(tensors) < 2 or header.get("method") not in METHODS:
        raise UsageError(f"{where} holds no probe (format {header.get('format')!r}, not {_FORMAT!r})")
    weight, bias = tensors["weight"], tensors["bias"].reshape(-1)
    if weight.ndim != 1 or len(bias) != 1 or not bool(torch.isfinite(torch.cat([weight, bias])).all()):
        raise UsageError(f"{where}: weight and bias must be finite, (d_model,) and (1,)")
    if width is not None and len(weight) != width:
        raise UsageError(f"{where} has width {len(weight)}; width {width} is needed")
    probe = Probe(weight.float(), float(bias[0]), header["method"], float(header["strength"]))
    return probe, parse_site(str(header["site"]))


def _told(probe: Probe, site: Site) -> dict[str, Any]:
    return {"site": str(site), "layer": site.layer, "method": probe.method, "strength": probe.strength}
