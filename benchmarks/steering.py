"""Rows 3 to 5: steered generation with one vector, with one vector per request, and of a ragged queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Model, Work
from benchmarks.peers import (
    NnsightPeer,
    Peer,
    RepengPeer,
    SteeringVectorsPeer,
    TransformerLensPeer,
    available,
    keep_equal,
    plain_generate,
)
from benchmarks.plan import Plan
from benchmarks.rounds import Variant, interleave
from benchmarks.table import Row, Target, row
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Request, Sampling
from marple.tools.engine.sites import Site

__all__ = ["one_by_one", "ours", "queue_rows", "steering_rows"]

PEERS: tuple[type[Peer], ...] = (NnsightPeer, TransformerLensPeer, SteeringVectorsPeer, RepengPeer)


@dataclass(frozen=True)
class Inputs:
    """Prompts of one length, and one vector for each of them; the first is also used for all."""

    prompts: list[list[int]]
    ids: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class Item:
    """One request of the ragged queue."""

    prompt: list[int]
    new: int
    vector: Tensor | None


def steering_rows(plan: Plan) -> list[Row]:
    """One batch of prompts: one vector for all, then one for each."""
    model, work = plan.model, plan.work
    peers = available(model, PEERS, wanted=plan.peers)
    prepare = partial(_inputs, model, work)
    share = check_steering(model, work, prepare(0), peers)
    new, layer = work.new, model.steered_layer
    many = 1.0 if work.batch < 8 else 0.4
    variants = {
        "generate": Variant(lambda inputs: plain_generate(model.plain, inputs.ids, new)),
        "ours": Variant(lambda inputs: ours(model, inputs.prompts, [inputs.vectors[0]] * work.batch, new)),
        "torch hook": Variant(lambda inputs: hooked(model, inputs.ids, inputs.vectors[0], new)),
        **{name: Variant(partial(_peer_steer, peer, layer, new)) for name, peer in peers.items()},
        "ours, 16 vectors": Variant(lambda inputs: ours(model, inputs.prompts, list(inputs.vectors), new)),
        "torch hook, one by one": Variant(
            lambda inputs: [
                hooked(model, inputs.ids[at : at + 1], inputs.vectors[at], new) for at in range(work.batch)
            ],
            rounds=plan.rounds_of(many / 2),
        ),
        **{
            f"{name}, {work.batch} invokes": Variant(partial(_peer_steer_each, peer, layer, new))
            for name, peer in peers.items()
            if isinstance(peer, NnsightPeer)
        },
    }
    timings = interleave(variants, rounds=plan.rounds, prepare=prepare)
    one = ("torch hook", *peers)
    each = tuple(name for name in variants if "one by one" in name or "invokes" in name)
    size = f"{work.batch} x {work.prompt} tokens, {work.new} new"
    return [
        row(
            f"steered generation, one vector, {size}",
            timings,
            Target(1.00),
            floor="generate",
            floor_is="plain generate",
            clock=model.clock,
            peers=one,
            checked=f"tokens equal to a torch hook around generate: {share:.0%}",
        ),
        row(
            f"{work.batch} requests, {work.batch} different vectors, {size}",
            timings,
            Target(1.08),
            floor="generate",
            floor_is="one unsteered batch",
            clock=model.clock,
            ours="ours, 16 vectors",
            peers=each,
            checked=f"each row equal to its own run alone: {share:.0%}",
        ),
    ]


def queue_rows(plan: Plan) -> list[Row]:
    """A queue of requests of all lengths, most of them steered: beside one after the other."""
    model, work = plan.model, plan.work
    prepare = partial(_queue, model, work)
    share = check_queue(model, prepare(0))
    variants = {
        "one by one": Variant(lambda items: one_by_one(model, items)),
        "ours": Variant(lambda items: model.target.engine.run(requests(model, items))),
        "static batches": Variant(lambda items: static_batches(model, items, size=16)),
    }
    rounds = plan.rounds_of(0.34)
    timings = interleave(variants, rounds=rounds, prepare=prepare, warm=plan.rounds > 2)
    faster, static = (timings.ratio("one by one", name, model.clock) for name in ("ours", "static batches"))
    lines = Row(
        f"ragged queue of {work.queue} mixed requests",
        "x faster",
        floor=1.0,
        floor_is="one by one",
        peers={"static batches of 16": static.median},
        wall=timings.ratio("one by one", "ours", "wall").median,
        rounds=rounds,
        seconds={name: timings.seconds(name, model.clock).median for name in variants},
        checked=f"requests equal to themselves alone, token for token: {share:.0%}",
    )
    return [lines.set(faster, Target(4.4, "at least"))]


# ------------------------------------------------------------------------------------------ one batch


def ours(model: Model, prompts: list[list[int]], vectors: Sequence[Tensor | None], new: int) -> list[tuple[int, ...]]:
    """Greedy tokens of each prompt under its vector."""
    edits: dict[int, list[Intervention]] = {}
    for vector in vectors:
        if vector is not None and id(vector) not in edits:
            edits[id(vector)] = [Intervention(Site(model.steered_layer, "resid_post"), vector)]
    done = model.target.generate(
        prompts,
        max_new_tokens=new,
        temperature=0.0,
        seeds=[0] * len(prompts),
        interventions=[[] if vector is None else edits[id(vector)] for vector in vectors],
    )
    return [one.tokens for one in done]


def hooked(model: Model, ids: Tensor, vector: Tensor | None, new: int) -> Tensor:
    """``transformers`` with a hook that adds the vector: ``(batch, new)``."""
    with _added(model, vector):
        return plain_generate(model.plain, ids, new)


@contextmanager
def _added(model: Model, vector: Tensor | None) -> Iterator[None]:
    if vector is None:
        yield
        return

    def add(module: object, arguments: object, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    hook = model.plain.model.layers[model.steered_layer].register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def check_steering(model: Model, work: Work, inputs: Inputs, peers: dict[str, Peer]) -> float:
    """Share of ours' rows whose tokens are those of a hook around ``generate``, alone; in float32 all or an error.

    Peers for which it is not all are left out.
    """
    new, layer = work.new, model.steered_layer
    one = hooked(model, inputs.ids, inputs.vectors[0], new)
    alone = torch.cat([hooked(model, inputs.ids[at : at + 1], inputs.vectors[at], new) for at in range(work.batch)])
    plain = plain_generate(model.plain, inputs.ids, new)
    if bool((one == plain).all(dim=1).any()):
        raise AssertionError("the vector changes nothing, so that a row that was not steered would not be noticed")
    found = {
        "ours": (_rows(ours(model, inputs.prompts, [inputs.vectors[0]] * work.batch, new)), one),
        "ours, a vector each": (_rows(ours(model, inputs.prompts, list(inputs.vectors), new)), alone),
    }
    for name, peer in list(peers.items()):
        keep_equal(peers, name, partial(_peer_check, peer, inputs, layer, new), partial(_same, model, one, alone))
    shares = {name: float((got.cpu() == want.cpu()).all(dim=1).float().mean()) for name, (got, want) in found.items()}
    # In 16 bits two sums in another order differ, and near ties then break either way.
    if model.dtype == torch.float32 and any(share < 1 for share in shares.values()):
        raise AssertionError(f"steered tokens differ from those of a hook around generate: {shares}")
    return min(shares.values())


def _peer_check(peer: Any, inputs: Inputs, layer: int, new: int) -> tuple[Tensor, Tensor | None]:
    each = peer.steer_each(inputs.ids, layer, inputs.vectors, new) if isinstance(peer, NnsightPeer) else None
    return peer.steer(inputs.ids, layer, inputs.vectors[0], new), each


def _same(model: Model, one: Tensor, alone: Tensor, found: tuple[Tensor, Tensor | None]) -> bool:
    if model.dtype != torch.float32:
        return True
    return torch.equal(found[0], one) and (found[1] is None or torch.equal(found[1], alone))


def _peer_steer(peer: Any, layer: int, new: int, inputs: Inputs) -> object:
    steer: Callable[..., object] = peer.steer
    return steer(inputs.ids, layer, inputs.vectors[0], new)


def _peer_steer_each(peer: Any, layer: int, new: int, inputs: Inputs) -> object:
    steer: Callable[..., object] = peer.steer_each
    return steer(inputs.ids, layer, inputs.vectors, new)


def _rows(tokens: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([list(line) for line in tokens])


def _inputs(model: Model, work: Work, number: int) -> Inputs:
    prompts = model.prompts(work.batch, work.prompt)
    return Inputs(prompts, model.ids(prompts), model.vectors(work.batch))


# ------------------------------------------------------------------------------------------ a queue


def requests(model: Model, items: Sequence[Item]) -> list[Request]:
    site = Site(model.steered_layer, "resid_post")
    return [
        Request(
            tuple(item.prompt),
            sampling=Sampling(item.new, temperature=0.0),
            interventions=() if item.vector is None else (Intervention(site, item.vector),),
        )
        for item in items
    ]


def one_by_one(model: Model, items: Sequence[Item]) -> list[tuple[int, ...]]:
    """``transformers`` with a hook, a request at a time."""
    found = [hooked(model, model.ids([item.prompt]), item.vector, item.new)[0] for item in items]
    return [tuple(int(token) for token in line) for line in found]


@torch.no_grad()
def static_batches(model: Model, items: Sequence[Item], *, size: int) -> list[tuple[int, ...]]:
    """``transformers`` on left-padded batches in the order of the queue, each row with its vector."""
    found: list[tuple[int, ...]] = []
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        width = max(len(item.prompt) for item in batch)
        ids = torch.tensor([[0] * (width - len(item.prompt)) + item.prompt for item in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(item.prompt)) + [1] * len(item.prompt) for item in batch])
        none = torch.zeros(model.shape.d_model, device=model.device, dtype=model.dtype)
        vectors = torch.stack([none if item.vector is None else item.vector for item in batch]).unsqueeze(1)
        with _added(model, vectors):
            done = model.plain.generate(
                input_ids=ids,
                attention_mask=mask.to(model.device),
                max_new_tokens=max(item.new for item in batch),
                do_sample=False,
            )[:, width:]
        found += [tuple(line[: item.new]) for line, item in zip(done.tolist(), batch, strict=True)]
    return found


def check_queue(model: Model, items: Sequence[Item]) -> float:
    """Share of the requests that say the same as alone; in float32 all or an error."""
    alone = one_by_one(model, items)
    together = [output.tokens for output in model.target.engine.run(requests(model, items))]
    same = [mine == its for mine, its in zip(together, alone, strict=True)]
    if model.dtype == torch.float32 and not all(same):
        raise AssertionError(f"{same.count(False)} of {len(same)} requests of the queue differ from themselves alone")
    return sum(same) / len(same)


def _queue(model: Model, work: Work, number: int) -> list[Item]:
    """Three of four requests have a vector of their own; lengths and order are drawn anew."""
    steered = work.queue * 3 // 4
    vectors: list[Tensor | None] = [*model.vectors(steered), *[None] * (work.queue - steered)]
    order = torch.randperm(work.queue, generator=model.generator).tolist()
    return [
        Item(model.prompts(1, model.number(*work.queue_prompt))[0], model.number(*work.queue_new), vectors[at])
        for at in order
    ]
