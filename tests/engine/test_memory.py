"""Memory stays bounded, whatever goes through."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from marple.errors import ToolError
from marple.tools.engine.requests import Capture, Request, Sampling
from marple.tools.engine.sites import Site
from marple.tools.target.handles import HandleStore
from tests.engine.small import engine_on, small_llama

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generate", "stream"])
def test_ten_thousand_prompts_stream_through_in_bounded_memory(kind: str) -> None:
    # Without trimming, the allocator of the C library keeps what was freed and hides what is held.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.engine.streaming", kind]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["done"] == 10_000
    # All activations of 7,500 prompts of 10 tokens in 2 layers of width 32 would be 19 MB, keys and values as much.
    assert found["grown"] < 8 << 20
    assert found["rows"] == found["singles"] == 0
    assert found["prefixes"] <= 2 << 20
    assert found["slots"] < 8 << 20


def test_a_large_batch_does_not_leave_its_memory_behind() -> None:
    engine = engine_on(small_llama(), batch_tokens=40_000, prefix_bytes=0)
    engine.run([Request((at % 40 + 2, 3), sampling=Sampling(100, 1.0, seed=at)) for at in range(120)])
    lane = engine._lanes[True]
    large = lane._slots.bytes
    engine.run([Request((5, 6), sampling=Sampling(3, 0.0))])
    assert lane._slots.bytes < large / 4


def test_the_caches_keep_to_their_bounds() -> None:
    engine = engine_on(small_llama(), prefix_bytes=30_000, result_bytes=30_000)
    held = (Capture(Site(1, "resid_post"), "all"),)
    for at in range(60):
        prompt = tuple((at + 3 * step) % 40 + 2 for step in range(20))
        engine.run([Request(prompt, sampling=Sampling(2, 0.0)), Request(prompt, captures=held)])
        assert engine._prefixes.bytes <= 30_000
        assert engine._results._held <= 30_000
    kept = [*engine._prefixes._entries.values()]
    storages = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for entry in kept
        for one in (*(tensor for pair in entry.stored for tensor in pair), entry.hidden)
        if one is not None
    }
    # Really held, views' storages included; the last hidden states are small change.
    assert sum(storages.values()) <= 30_000 + 64 * len(kept)
    assert kept


def test_handles_keep_to_their_bound_and_the_least_recently_used_go() -> None:
    store = HandleStore(limit_bytes=4 * 400)
    names = [store.put("vector", {"vector": torch.full((100,), float(at))}, {"at": at}) for at in range(4)]
    store.get(names[0], "vector")
    names.append(store.put("vector", {"vector": torch.full((100,), 9.0)}, {}))
    assert store.names("vector") == [names[2], names[3], names[0], names[4]]
    with pytest.raises(ToolError, match=f'"{names[1]}" is no handle of a vector.*{names[4]}'):
        store.get(names[1], "vector")
    for at in range(50):
        store.put("activations", {"resid": torch.full((100 + at,), float(at))}, {})
        assert store._held <= 4 * 400
    with pytest.raises(ToolError, match="capture fewer positions"):
        store.put("activations", {"resid": torch.zeros(1000)}, {})


def test_a_handle_is_a_copy_named_by_its_content() -> None:
    store = HandleStore()
    given = torch.ones(5)
    name = store.put("vector", {"vector": given}, {"site": "resid_post.1"})
    given.zero_()
    assert torch.equal(store.get(name, "vector").tensors["vector"], torch.ones(5))
    assert store.put("vector", {"vector": torch.ones(5)}, {"site": "resid_post.1"}) == name
    others = [
        store.put("vector", {"vector": torch.ones(5)}, {"site": "resid_post.2"}),
        store.put("vector", {"vector": 2 * torch.ones(5)}, {"site": "resid_post.1"}),
        store.put("vector", {"other": torch.ones(5)}, {"site": "resid_post.1"}),
        store.put("probe", {"vector": torch.ones(5)}, {"site": "resid_post.1"}),
    ]
    assert len({name, *others}) == 5
    assert len(store.names("vector")) == 4


def test_a_handle_of_another_kind_is_refused() -> None:
    store = HandleStore()
    name = store.put("activations", {"resid": torch.ones(3)}, {})
    vector = store.put("vector", {"vector": torch.ones(3)}, {})
    with pytest.raises(ToolError, match=f"handle of activations, not of a vector.*{vector}"):
        store.get(name, "vector")
    with pytest.raises(ToolError, match="there are: none"):
        store.get("probe-00000000", "probe")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_handle_holds_finite_numbers(bad: float) -> None:
    with pytest.raises(ToolError, match="vector holds NaN or infinite"):
        HandleStore().put("vector", {"vector": torch.tensor([1.0, bad])}, {})
