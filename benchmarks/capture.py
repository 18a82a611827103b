"""Rows 1 and 2: reading the residual stream, and what one call costs beyond its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Model
from benchmarks.peers import NnsightPeer, TransformerLensPeer, available, keep_equal
from benchmarks.plan import Plan
from benchmarks.rounds import Variant, interleave
from benchmarks.table import Row, Target, row
from marple.tools.engine.sites import Site

__all__ = ["capture_rows", "overhead_rows"]

DEPTHS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Inputs:
    """One round's prompts, as lists for ours and as a tensor for the others."""

    prompts: list[list[int]]
    ids: Tensor


def capture_rows(plan: Plan) -> list[Row]:
    """All layers at all positions, against the whole forward pass and against its body; then one layer."""
    model, layers = plan.model, range(plan.model.shape.layers)
    peers = available(model, (NnsightPeer, TransformerLensPeer), wanted=plan.peers)
    prepare = partial(_inputs, model, plan.work.batch, plan.work.prompt)
    deepest = check_captures(model, prepare(0), peers)
    variants = {
        "forward": Variant(lambda inputs: forward(model, inputs.ids)),
        "body": Variant(lambda inputs: body(model, inputs.ids)),
        "ours": Variant(lambda inputs: ours(model, inputs.prompts, layers)),
        "torch hooks": Variant(lambda inputs: hooked(model, inputs.ids, layers)),
        "hidden_states": Variant(lambda inputs: hidden_states(model, inputs.ids)),
        **{name: Variant(partial(_peer_capture, peer, layers)) for name, peer in peers.items()},
        **{f"depth {depth:g}": Variant(partial(_one_layer, model, depth)) for depth in DEPTHS},
    }
    timings = interleave(variants, rounds=plan.rounds, prepare=prepare)
    size = f"{plan.work.batch} x {plan.work.prompt} tokens"
    checked = f"all layers equal to torch hooks, largest difference {deepest:.1e}"
    others = ("torch hooks", "hidden_states", *peers)
    clock = model.clock
    return [
        row(
            f"capture all layers, all positions, {size}",
            timings,
            Target(0.88),
            floor="forward",
            floor_is="plain forward",
            clock=clock,
            peers=others,
            checked=checked,
            note="no logits are asked for, so ours runs no LM head; the others run it",
        ),
        row(
            f"the same beside the same work, {size}",
            timings,
            Target(1.03),
            floor="body",
            floor_is="forward without the LM head",
            clock=clock,
            peers=(),
            checked=checked,
        ),
        *(
            row(
                f"capture one layer at depth {depth:g}, all positions, {size}",
                timings,
                Target(depth + 0.10),
                floor="forward",
                floor_is="plain forward",
                clock=clock,
                ours=f"depth {depth:g}",
                peers=(),
            )
            for depth in DEPTHS
        ),
    ]


def overhead_rows(plan: Plan) -> list[Row]:
    """One short prompt: what a call adds to the pass through the model, in milliseconds."""
    model, layers = plan.model, range(plan.model.shape.layers)
    peers = available(model, (NnsightPeer, TransformerLensPeer), wanted=plan.peers)
    prepare = partial(_inputs, model, 1, 4)
    check_captures(model, prepare(0), peers)
    repeats = 3 if plan.rounds > 2 else 1
    variants = {
        "forward": Variant(lambda inputs: forward(model, inputs.ids)),
        "forward, last logits": Variant(lambda inputs: forward(model, inputs.ids, last=True)),
        "body": Variant(lambda inputs: body(model, inputs.ids)),
        # Other prompts at every repetition: the answer to an equal request would come from the cache.
        "capture": Variant(lambda inputs: ours(model, model.prompts(1, 4), layers), repeats=repeats),
        "next_logits": Variant(lambda inputs: model.target.next_logits(model.prompts(1, 4)), repeats=repeats),
        **{name: Variant(partial(_peer_capture, peer, layers), repeats=repeats) for name, peer in peers.items()},
    }
    for floor in ("forward", "forward, last logits", "body"):
        variants[floor] = Variant(variants[floor].work, repeats=repeats)
    timings = interleave(variants, rounds=max(plan.rounds, 3 * plan.rounds), prepare=prepare)

    def one(operation: str, ours_is: str, floor: str, floor_is: str, others: Sequence[str]) -> Row:
        clock = model.clock
        value = timings.difference(ours_is, floor, clock)
        return Row(
            operation,
            "ms",
            floor=0.0,
            floor_is=floor_is,
            peers={name: timings.difference(name, "forward", clock).median * 1e3 for name in others},
            wall=timings.difference(ours_is, floor, "wall").median * 1e3,
            rounds=len(timings.cpu[ours_is]),
            seconds={name: timings.seconds(name, clock).median for name in (floor, ours_is, *others)},
        ).set(value, Target(1.0), scale=1e3)

    return [
        one(
            "one call beyond the forward, capture of 1 x 4 tokens",
            "capture",
            "body",
            "forward without the LM head",
            [*peers],
        ),
        one(
            "one call beyond the forward, logits of 1 x 4 tokens",
            "next_logits",
            "forward, last logits",
            "forward, logits of the last token",
            [],
        ),
    ]


def check_captures(model: Model, inputs: Inputs, peers: dict[str, Any]) -> float:
    """Ours' largest difference from torch hooks; too large a one is an error, and a peer with one is left out."""
    layers = range(model.shape.layers)
    expected = hooked(model, inputs.ids, layers)
    length = max(float(one.float().norm(dim=-1).max()) for one in expected)
    tolerance = length * (1e-5 if model.dtype == torch.float32 else 2e-2)

    def furthest(values: Sequence[Tensor]) -> float:
        pairs = zip(values, expected, strict=True)
        return max(float((one.to(other) - other).abs().max()) for one, other in pairs)

    for name, peer in list(peers.items()):
        keep_equal(peers, name, partial(peer.capture, inputs.ids, layers), lambda found: furthest(found) <= tolerance)
    captured = ours(model, inputs.prompts, layers)
    worst = furthest([torch.stack(captured[Site(at, "resid_post")]) for at in layers])
    if not worst <= tolerance:
        raise AssertionError(f"ours captures something else than torch hooks: difference {worst:.2g}")
    return worst


@torch.no_grad()
def forward(model: Model, ids: Tensor, *, last: bool = False) -> Tensor:
    logits: Tensor = model.plain(input_ids=ids, use_cache=False, logits_to_keep=int(last)).logits
    return logits


@torch.no_grad()
def body(model: Model, ids: Tensor) -> Tensor:
    states: Tensor = model.plain.model(input_ids=ids, use_cache=False).last_hidden_state
    return states


@torch.no_grad()
def hidden_states(model: Model, ids: Tensor) -> object:
    return model.plain(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states


def hooked(model: Model, ids: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """Forward hooks that keep each layer's output: ``(batch, position, d_model)`` for each layer."""
    held: list[Tensor] = []
    hooks: list[Any] = []

    def keep(module: object, arguments: object, output: Any) -> None:
        held.append(output[0] if isinstance(output, tuple) else output)

    try:
        hooks += [model.plain.model.layers[at].register_forward_hook(keep) for at in layers]
        forward(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    return held


def ours(model: Model, prompts: list[list[int]], layers: Sequence[int]) -> dict[Site, list[Tensor]]:
    return model.target.capture(prompts, [Site(at, "resid_post") for at in layers], positions="all")


def _one_layer(model: Model, depth: float, inputs: Inputs) -> object:
    last = max(0, round(depth * model.shape.layers) - 1)
    return ours(model, inputs.prompts, [last])


def _peer_capture(peer: Any, layers: Sequence[int], inputs: Inputs) -> object:
    capture: Callable[..., object] = peer.capture
    return capture(inputs.ids, layers)


def _inputs(model: Model, count: int, length: int, number: int) -> Inputs:
    prompts = model.prompts(count, length)
    return Inputs(prompts, model.ids(prompts))
