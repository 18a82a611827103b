"""A model's tensors, written into files that say nothing of how they were stored before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from marple.errors import TargetRefusedError
from marple.sandboxes.staging.adapters import Adapter
from marple.sandboxes.staging.rewriting import dump
from marple.sandboxes.staging.weights import NewTensor, Weights, from_file, in_file_order, read_tensor, write_weights

__all__ = ["SHARD_BYTES", "tensors_of", "write_shards"]

SHARD_BYTES = 4 * 2**30
"""Most bytes of tensors in a file; a larger tensor has one of its own."""
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings)\.weight$")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")


def tensors_of(shards: Iterable[Weights], adapter: Adapter | None = None, *, tied: bool = False) -> list[NewTensor]:
    """Every tensor of a model once, with an adapter merged in.

    Args:
        shards: its files.
        adapter: what is merged.
        tied: whether head and embedding are one matrix; a second copy of it is left out, as some writers do.

    Raises:
        TargetRefusedError: a tensor is in two files, or the adapter changes what there is not or what is tied.
    """
    sources: dict[str, Weights] = {}
    for shard in shards:
        if twice := sources.keys() & shard.tensors.keys():
            raise TargetRefusedError(f"tensor {min(twice)!r} is in two of the weights files")
        sources.update(dict.fromkeys(shard.tensors, shard))
    if adapter is not None:
        _refuse_misfit(adapter, sources.keys(), tied=tied)
    if tied:
        for name in _second_copies(sources):
            del sources[name]
    return [_tensor(source, name, adapter) for name, source in sources.items()]


def write_shards(tensors: Sequence[NewTensor], destination: Path, *, most_bytes: int = SHARD_BYTES) -> None:
    """Write them under fixed names, cut by their names and sizes alone, with an index where there are several files."""
    files: list[list[NewTensor]] = [[]]
    for tensor in sorted(tensors, key=in_file_order):
        if files[-1] and sum(one.size for one in files[-1]) + tensor.size > most_bytes:
            files.append([])
        files[-1].append(tensor)
    if len(files) == 1:
        write_weights(files[0], destination / "model.safetensors")
        return
    weight_map = {}
    for number, file in enumerate(files, start=1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        write_weights(file, destination / name)
        weight_map.update({tensor.name: name for tensor in file})
    total = sum(tensor.size for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (destination / "model.safetensors.index.json").write_bytes(dump(index))


def _tensor(source: Weights, name: str, adapter: Adapter | None) -> NewTensor:
    if adapter is None or name not in adapter.changed:
        return from_file(source, name)
    tensor = source.tensors[name]

    def merged() -> Iterable[bytes]:
        return (adapter.merge(name, tensor, read_tensor(source, name)),)

    return NewTensor(name, tensor.dtype, tensor.shape, tensor.size, merged)


def _refuse_misfit(adapter: Adapter, there: Iterable[str], *, tied: bool) -> None:
    if unknown := sorted(adapter.changed - set(there)):
        raise TargetRefusedError(
            f"the adapter changes {unknown[0]!r}, which the target does not have"
            + (" (head and embedding are one matrix in it)" if tied and _HEAD.search(unknown[0]) else "")
        )
    if shared := sorted(name for name in adapter.changed if tied and (_HEAD.search(name) or _EMBEDDING.search(name))):
        raise TargetRefusedError(
            f"the adapter changes {shared[0]!r}, which the target uses as embedding and as head; merge it with PEFT's "
            "merge_and_unload and give the merged model"
        )


def _second_copies(sources: dict[str, Weights]) -> list[str]:
    """Heads that hold the embedding's very bytes."""
    embeddings = [name for name in sources if _EMBEDDING.search(name)]
    heads = [name for name in sources if _HEAD.search(name)]
    return [head for head in heads if any(_equal(sources, head, other) for other in embeddings)]


def _equal(sources: dict[str, Weights], one: str, other: str) -> bool:
    first, second = from_file(sources[one], one), from_file(sources[other], other)
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return all(a == b for a, b in zip(first.content(), second.content(), strict=True))
