"""Copy a target to where the worker will see it, with nothing in names, metadata or times that tells what it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.errors import StagingError, TargetRefusedError
from marple.sandboxes.scratch import Scratch, claim_scratch
from marple.sandboxes.staging.adapters import Adapter, read_adapter
from marple.sandboxes.staging.apart import has_linear_layers, write_apart
from marple.sandboxes.staging.leaks import check_keys, check_leaks
from marple.sandboxes.staging.rewriting import COPIERS, from_json, read_small, resolve
from marple.sandboxes.staging.sae_files import CARDS, copy_lines, copy_sae
from marple.sandboxes.staging.shards import tensors_of, write_shards
from marple.sandboxes.staging.weights import Weights, open_regular, read_weights

__all__ = ["StagedTarget", "stage"]

_MERGED_BELOW = 2**30
"""Bytes of a base's weights from which one copy of them in memory matters more than hiding the adapter's rank."""


@dataclass(frozen=True)
class StagedTarget:
    """A target as a worker sees it: a directory under a random name, read-only, the same for every organism."""

    root: Path
    target: Path
    reference: Path | None = None
    adapter: Path | None = None
    """The target's adapter, or one of zeros, where it was kept apart: the reference then is the target without it."""
    saes: tuple[Path, ...] = ()
    corpus: Path | None = None
    plugins: tuple[Path, ...] = ()
    """Tool files of the user's, copied."""
    _scratch: Scratch | None = field(default=None, repr=False, compare=False)

    def remove(self) -> None:
        """Delete everything; harmless when repeated."""
        if self._scratch is not None:
            self._scratch.remove()

    def __enter__(self) -> StagedTarget:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def stage(
    target: Path,
    *,
    reference: Path | None = None,
    adapter: Path | None = None,
    merge_adapter: bool | None = None,
    saes: Sequence[Path] = (),
    corpus: Path | None = None,
    public: Path | None = None,
    plugins: Sequence[Path] = (),
    forbidden: Collection[str] = (),
    into: Path | None = None,
) -> StagedTarget:
    """Copy a target, and the reference it may be compared with, into a directory a worker can be given.

    Only the files a model needs are copied, under fixed names and with times and modes that are always the same. JSON
    is written anew without paths and names, weights in files cut by a fixed rule and without metadata, adapters are
    merged or brought into one form.

    Args:
        target: a Hugging Face model directory.
        reference: the model it is compared with; the worker sees it.
        adapter: a PEFT directory with a LoRA adapter of the target.
        merge_adapter: True merges it into the target's weights. False keeps it apart, so that target and reference
            share one copy of the weights; that needs the target's directory as the reference, and plain LoRA. None
            merges it unless that is so and the weights take 1 GiB or more. Without an adapter, False, or None with
            such weights, puts one of zeros beside a target that is its own reference.
        saes: directories with a sparse autoencoder of the target each.
        corpus: a JSONL file of transcripts, for the tools that search them.
        public: a model directory whose texts are no secret, for the search; None for the reference. The
            worker does not see it.
        plugins: Python files with tools of the user's own.
        forbidden: words of the ground truth that must not occur in what was staged.
        into: the directory to make the copy in; None for the system's temporary directory.

    Raises:
        TargetRefusedError: the target, or what comes with it, cannot be loaded safely.
        LeakError: a forbidden word was found.
        StagingError: the copy could not be written.
    """
    scratch = claim_scratch(into)
    try:
        root = scratch.path
        change = None if adapter is None else _open_adapter(adapter, target)
        apart = _stays_apart(target, reference, change, merge_adapter)
        staged = StagedTarget(
            root=root,
            target=_copy_model(target, root / "target", adapter=None if apart else change),
            reference=None
            if reference is None or apart
            else _copy_model(reference, root / "reference", template=False),
            adapter=_copy_adapter(change, target, root / "adapter") if apart else None,
            saes=tuple(copy_sae(sae, root / "saes" / f"sae_{index}") for index, sae in enumerate(saes)),
            corpus=None if corpus is None else copy_lines(corpus, root / "corpus.jsonl"),
            plugins=tuple(_copy_plugin(plugin, root / "tools", index) for index, plugin in enumerate(plugins)),
            _scratch=scratch,
        )
        if forbidden:
            _search(staged, forbidden, public=public)
        _make_uniform(root)
    except OSError as error:
        scratch.remove()
        raise StagingError(f"the target could not be staged: {error.strerror or error}") from error
    except BaseException:
        scratch.remove()
        raise
    return staged


def _stays_apart(target: Path, reference: Path | None, adapter: Adapter | None, merge: bool | None) -> bool:
    """Whether target and reference get one copy of the weights, with an adapter beside it (of zeros if there is none).

    A twin without an adapter is treated as its organism, so that how it is staged does not tell.
    """
    is_base = reference is not None and reference.resolve() == target.resolve()
    if merge is False and adapter is not None and not (is_base and adapter.plain):
        raise TargetRefusedError(
            "an adapter can be kept apart only where the reference is the model it belongs to, and where it is plain "
            "LoRA; merge it, or give that model as the reference"
        )
    if not is_base or merge is True or (adapter is not None and not adapter.plain):
        return False
    shards = _open_model(target)
    if adapter is None and not has_linear_layers(shards):
        return False
    size = sum(tensor.size for shard in shards for tensor in shard.tensors.values())
    return merge is False or size >= _MERGED_BELOW


def _copy_plugin(plugin: Path, folder: Path, index: int) -> Path:
    folder.mkdir(exist_ok=True)
    copy = folder / f"tool_{index}.py"
    copy.write_bytes(read_small(plugin))
    return copy


def _search(staged: StagedTarget, forbidden: Collection[str], *, public: Path | None) -> None:
    # A target whose adapter was kept apart is the reference itself.
    itself = staged.target if staged.adapter is not None else None
    check_leaks(staged.target, forbidden, public=public or staged.reference or itself)
    if staged.reference is not None:
        check_leaks(staged.reference, forbidden, public=public or staged.target)
    for folder in (staged.root / name for name in ("adapter", "saes", "tools")):
        check_leaks(folder, forbidden, skip={CARDS})
    # What the texts of a corpus and the examples on a card say is what is to be examined; how they are labelled is not.
    texts = [staged.corpus] if staged.corpus is not None else []
    for path in (*texts, *(staged.root / "saes").rglob(CARDS)):
        check_keys(path, forbidden)


def _make_uniform(root: Path) -> None:
    cache = root / "cache"
    cache.mkdir()
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(folder, name)
            path.chmod(0o444)
            os.utime(path, ns=(0, 0))
        Path(folder).chmod(0o555)
        os.utime(folder, ns=(0, 0))
    # Where libraries may write, so that they leave nothing in the user's directories.
    cache.chmod(0o700)


# ---------------------------------------------------------------------------------------------- one model


def _copy_model(source: Path, destination: Path, *, adapter: Adapter | None = None, template: bool = True) -> Path:
    shards = _open_model(source, template=template)
    destination.mkdir()
    names = {path.name for path in source.iterdir()}
    for name in sorted(names & COPIERS.keys()):
        copied = COPIERS[name](read_small(resolve(source / name)), name)
        (destination / name).write_bytes(copied)
    config = from_json(read_small(resolve(source / "config.json")), "config.json")
    write_shards(tensors_of(shards, adapter, tied=_is_tied(config)), destination)
    return destination


def _open_model(source: Path, *, template: bool = True) -> list[Weights]:
    from marple.tools.target.checkpoint import check_target_dir

    _refuse_odd_files(source)
    checkpoint = check_target_dir(source, chat_template=template)
    if checkpoint.kind == "adapter":
        raise TargetRefusedError(
            f"{str(source)!r} is an adapter: give the model it belongs to as the target and this as the adapter"
        )
    return [read_weights(resolve(source / name)) for name in checkpoint.weights]


def _copy_adapter(adapter: Adapter | None, base: Path, destination: Path) -> Path:
    write_apart(adapter, _open_model(base), destination)
    return destination


def _is_tied(config: Any) -> bool:
    inner = config.get("text_config") if isinstance(config, dict) else None
    return any(isinstance(one, dict) and one.get("tie_word_embeddings") is True for one in (config, inner))


def _refuse_odd_files(source: Path) -> None:
    # Before anything reads them: a pipe would hold the host, a link could bring in any file of the user's.
    for path in source.iterdir() if source.is_dir() else ():
        if path.suffix in (".json", ".safetensors") or path.name in COPIERS:
            open_regular(resolve(path)).close()


def _open_adapter(adapter: Path, base: Path) -> Adapter:
    from marple.tools.target.checkpoint import check_target_dir

    _refuse_odd_files(adapter)
    checkpoint = check_target_dir(adapter)
    if checkpoint.kind != "adapter":
        raise TargetRefusedError(f"{str(adapter)!r} is not a PEFT adapter: it has no adapter_config.json")
    for name in ("tokenizer.json", "chat_template.jinja"):
        if (adapter / name).exists() and not _same_text(adapter / name, base / name):
            raise TargetRefusedError(
                f"the adapter brings its own {name}; merge it with PEFT's merge_and_unload and give the merged model"
            )
    return read_adapter(adapter, checkpoint.weights)


def _same_text(one: Path, other: Path) -> bool:
    return other.exists() and read_small(resolve(one)) == read_small(resolve(other))
