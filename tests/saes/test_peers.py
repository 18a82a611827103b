"""SAELens and this project read each other's files and compute the same from them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from marple.tools.saes.loading import load_sae
from marple.tools.saes.sae import SAE
from marple.tools.saes.saelens import write_saelens

PEER = os.environ.get("MARPLE_PEERS_PYTHON") or (sys.executable if importlib.util.find_spec("sae_lens") else None)
pytestmark = pytest.mark.skipif(
    PEER is None,
    reason="SAELens is not installed (extra `peers`, or MARPLE_PEERS_PYTHON for an interpreter that has it)",
)


def run_peer(verb: str, folder: Path) -> list[Path]:
    script = Path(__file__).with_name("peer.py")
    assert PEER is not None
    done = subprocess.run([PEER, script, verb, folder], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted(folder.iterdir())


def compare(sae: SAE, folder: Path) -> dict[str, float]:
    """Largest differences from what SAELens computed."""
    expected = load_file(folder / "expected.safetensors")
    features, out = sae.encode(expected["x"]), sae.reconstruct(expected["x"])
    assert (expected["features"] > 0).any()
    values = sae.top(expected["x"], 5)[0]
    return {
        "features": float((features - expected["features"]).abs().max()),
        "out": float((out - expected["out"]).abs().max()),
        "top": float((values - expected["features"].topk(5).values).abs().max()),
    }


@pytest.mark.slow
def test_what_saelens_writes_is_read_and_computes_the_same(tmp_path: Path) -> None:
    folders = run_peer("write", tmp_path)
    assert len(folders) == 11
    for folder in folders:
        sae = load_sae(folder)
        difference = compare(sae, folder)
        print(folder.name, difference)
        if folder.name == "topk_rescaled":
            # Its features come out in the same units, because the norms are folded and not dropped.
            assert torch.allclose(sae.weights.W_dec.norm(dim=1), torch.ones(40))
        assert max(difference.values()) < 1e-4, (folder.name, difference)


@pytest.mark.slow
def test_what_is_written_here_is_read_by_saelens_and_computes_the_same(tmp_path: Path) -> None:
    saes = {}
    for folder in run_peer("write", tmp_path / "in"):
        saes[folder.name] = load_sae(folder)
        write_saelens(saes[folder.name], tmp_path / "out" / folder.name)
    for folder in run_peer("read", tmp_path / "out"):
        difference = compare(saes[folder.name], folder)
        assert max(difference.values()) < 1e-4, (folder.name, difference)
