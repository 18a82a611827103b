"""Absolute figures, for an accelerator above all: tokens per second, host syncs per token, peak memory."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.models import Model
from benchmarks.peers import plain_generate
from benchmarks.plan import Plan
from benchmarks.steering import hooked, ours

__all__ = ["device_figures"]


def device_figures(plan: Plan) -> dict[str, Any]:
    """Steered and unsteered generation of one batch, ours and that of ``transformers``."""
    model, work = plan.model, plan.work
    new = work.new

    def inputs() -> tuple[list[list[int]], torch.Tensor]:
        return model.prompts(work.batch, work.prompt), model.vectors(work.batch)

    ways: dict[str, Callable[[], object]] = {
        "transformers, unsteered": lambda: plain_generate(model.plain, model.ids(inputs()[0]), new),
        "transformers, one vector": lambda: hooked(model, model.ids(inputs()[0]), inputs()[1][0], new),
        "ours, unsteered": lambda: ours(model, inputs()[0], [None] * work.batch, new),
        "ours, a vector for each row": lambda: ours(model, inputs()[0], list(inputs()[1]), new),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(plan.rounds):
        for name, way in ways.items():
            speeds[name].append(work.batch * new / _seconds(model, way))
    figures: dict[str, Any] = {
        "batch": work.batch,
        "prompt tokens": work.prompt,
        "new tokens": new,
        "tokens per second": {name: statistics.median(values) for name, values in speeds.items()},
    }
    plain, steered = (figures["tokens per second"][name] for name in ("ours, unsteered", "ours, a vector for each row"))
    figures["steered over unsteered"] = steered / plain
    if model.device.startswith("cuda"):
        # The difference between twice as many tokens and as many: what happens once per call falls out of it.
        figures["host syncs per generated token"] = {
            name: (_syncs(way(2 * new)) - _syncs(way(new))) / new for name, way in _by_length(model, inputs).items()
        }
        figures["memory, GiB"] = _memory(model, ways)
        figures["device"] = torch.cuda.get_device_name()
    return figures


def _by_length(
    model: Model, inputs: Callable[[], tuple[list[list[int]], torch.Tensor]]
) -> dict[str, Callable[[int], Callable[[], object]]]:
    def plain(new: int) -> Callable[[], object]:
        return lambda: plain_generate(model.plain, model.ids(inputs()[0]), new)

    def unsteered(new: int) -> Callable[[], object]:
        def run() -> object:
            prompts, _ = inputs()
            return ours(model, prompts, [None] * len(prompts), new)

        return run

    def steered(new: int) -> Callable[[], object]:
        def run() -> object:
            prompts, vectors = inputs()
            return ours(model, prompts, list(vectors), new)

        return run

    return {"transformers": plain, "ours, unsteered": unsteered, "ours, a vector for each row": steered}


def _seconds(model: Model, way: Callable[[], object]) -> float:
    _synchronize(model)
    began = time.perf_counter()
    way()
    _synchronize(model)
    return time.perf_counter() - began


def _synchronize(model: Model) -> None:
    if model.device.startswith("cuda"):
        torch.cuda.synchronize()


def _syncs(way: Callable[[], object]) -> int:
    """How often the host waited for the device, as torch's own check for it counts."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            way()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def _memory(model: Model, ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    peaks = {"weights": sum(one.nbytes for one in model.plain.parameters()) / 2**30}
    for name, way in ways.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        way()
        torch.cuda.synchronize()
        peaks[f"peak, {name}"] = torch.cuda.max_memory_allocated() / 2**30
    return peaks
