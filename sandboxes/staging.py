"""Copy a target to where the worker will see it, with nothing in names, metadata or times that tells what it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.errors import StagingError, TargetRefusedError
from marple.sandboxes.adapters import Adapter, read_adapter
from marple.sandboxes.leaks import check_leaks
from marple.sandboxes.scratch import Scratch, claim_scratch
from marple.sandboxes.weights import Weights, copy_weights, open_regular, read_weights

__all__ = ["StagedTarget", "stage"]

_MAX_TEXT_BYTES = 256 * 1024 * 1024
_TOKENIZER_KEYS = {
    "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
    "model",
}  # fmt: skip
_TELLING_KEYS = {
    "_name_or_path", "name_or_path", "base_model_name_or_path", "model_name", "auto_map", "custom_pipelines",
    "_commit_hash", "transformers_version", "finetuning_task", "task_specific_params", "problem_type", "id2label",
    "label2id", "license", "dataset", "datasets", "tags", "run_name", "special_tokens_map_file",
    "tokenizer_file", "vocab_file", "merges_file", "local_files_only", "is_local", "processor_class",
}  # fmt: skip


@dataclass(frozen=True)
class StagedTarget:
    """A target as a worker sees it: a directory under a random name, read-only, the same for every organism."""

    root: Path
    target: Path
    reference: Path | None = None
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
    public: Path | None = None,
    plugins: Sequence[Path] = (),
    forbidden: Collection[str] = (),
    into: Path | None = None,
) -> StagedTarget:
    """Copy a target, and the reference it may be compared with, into a directory a worker can be given.

    Only the files a model needs are copied, under fixed names and with times and modes that are always the same. JSON
    is written anew without paths and names, safetensors headers without metadata, adapters are merged.

    Args:
        target: a Hugging Face model directory.
        reference: the model it is compared with; the worker sees it.
        adapter: a PEFT directory with a plain LoRA adapter, merged into the target's weights.
        public: a model directory whose texts are no secret, for the search; None for the reference. The
            worker does not see it.
        plugins: Python files with tools of the user's own.
        forbidden: words of the ground truth that must not occur in what was staged.
        into: the directory to make the copy in; None for the system's temporary directory.

    Raises:
        TargetRefusedError: the target, its reference or its adapter cannot be loaded safely.
        LeakError: a forbidden word was found.
        StagingError: the copy could not be written.
    """
    scratch = claim_scratch(into)
    try:
        staged = _fill(scratch, target, reference=reference, adapter=adapter, plugins=plugins)
        if forbidden:
            _search(staged, forbidden, public=public)
        _make_uniform(scratch.path)
    except OSError as error:
        scratch.remove()
        raise StagingError(f"the target could not be staged: {error.strerror or error}") from error
    except BaseException:
        scratch.remove()
        raise
    return staged


def _fill(
    scratch: Scratch, target: Path, *, reference: Path | None, adapter: Path | None, plugins: Sequence[Path]
) -> StagedTarget:
    root = scratch.path
    _copy_model(target, root / "target", adapter=adapter)
    if reference is not None:
        _copy_model(reference, root / "reference", is_reference=True)
    copies = []
    for index, plugin in enumerate(plugins):
        copies.append(root / "tools" / f"tool_{index}.py")
        copies[-1].parent.mkdir(exist_ok=True)
        copies[-1].write_bytes(_read(plugin))
    return StagedTarget(
        root=root,
        target=root / "target",
        reference=None if reference is None else root / "reference",
        plugins=tuple(copies),
        _scratch=scratch,
    )


def _search(staged: StagedTarget, forbidden: Collection[str], *, public: Path | None) -> None:
    check_leaks(staged.target, forbidden, public=public or staged.reference)
    if staged.reference is not None:
        check_leaks(staged.reference, forbidden, public=public or staged.target)
    for folder in {plugin.parent for plugin in staged.plugins}:
        check_leaks(folder, forbidden)


def _make_uniform(root: Path) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(folder, name)
            path.chmod(0o444)
            os.utime(path, ns=(0, 0))
        Path(folder).chmod(0o555)
        os.utime(folder, ns=(0, 0))


# ---------------------------------------------------------------------------------------------- one model


def _copy_model(source: Path, destination: Path, *, adapter: Path | None = None, is_reference: bool = False) -> None:
    from marple.tools.target.checkpoint import check_target_dir

    _refuse_odd_files(source)
    checkpoint = check_target_dir(source, chat_template=not is_reference)
    if checkpoint.kind == "adapter":
        raise TargetRefusedError(
            f"{str(source)!r} is an adapter: give the model it belongs to as the target and this as the adapter"
        )
    destination.mkdir()
    names = {path.name for path in source.iterdir()}
    for name in sorted(names & _COPIERS.keys()):
        copied = _COPIERS[name](_read(_resolve(source / name)), name)
        (destination / name).write_bytes(copied)
    merged = None if adapter is None else _open_adapter(adapter, source)
    _copy_shards([read_weights(_resolve(source / name)) for name in checkpoint.weights], destination, merged)


def _refuse_odd_files(source: Path) -> None:
    # Before anything reads them: a pipe would hold the host, a link could bring in any file of the user's.
    for path in source.iterdir() if source.is_dir() else ():
        if path.suffix in (".json", ".safetensors") or path.name in _COPIERS:
            open_regular(_resolve(path)).close()


def _resolve(path: Path) -> Path:
    """The file itself: links are refused, except those the Hugging Face cache consists of."""
    if path.is_symlink():
        real = path.resolve()
        cache = path.parent.resolve().parent.parent
        if cache.name.startswith("models--") and real.parent == cache / "blobs":
            return real
    return path


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        data = file.read(_MAX_TEXT_BYTES + 1)
    if len(data) > _MAX_TEXT_BYTES:
        raise TargetRefusedError(f"{path.name} is larger than {_MAX_TEXT_BYTES} bytes")
    return data


def _copy_shards(shards: Sequence[Weights], destination: Path, adapter: Adapter | None) -> None:
    weight_map: dict[str, str] = {}
    total = 0
    for index, shard in enumerate(shards, start=1):
        single = len(shards) == 1
        name = "model.safetensors" if single else f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        if twice := weight_map.keys() & shard.tensors.keys():
            raise TargetRefusedError(f"tensor {min(twice)!r} is in two of the weights files")
        weight_map.update(dict.fromkeys(shard.tensors, name))
        total += sum(tensor.size for tensor in shard.tensors.values())
        if adapter is None:
            copy_weights(shard, destination / name)
        else:
            copy_weights(shard, destination / name, change=adapter.merge, changed=adapter.changed)
    if adapter is not None and (unknown := sorted(adapter.changed - weight_map.keys())):
        raise TargetRefusedError(f"the adapter changes {unknown[0]!r}, which the target does not have")
    if len(shards) > 1:
        index_file = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (destination / "model.safetensors.index.json").write_bytes(_dump(index_file))


def _open_adapter(adapter: Path, base: Path) -> Adapter:
    from marple.tools.target.checkpoint import check_target_dir

    if check_target_dir(adapter).kind != "adapter":
        raise TargetRefusedError(f"{str(adapter)!r} is not a PEFT adapter: it has no adapter_config.json")
    for name in ("tokenizer.json", "chat_template.jinja"):
        if (adapter / name).exists() and _read(adapter / name) != _read(_resolve(base / name)):
            raise TargetRefusedError(
                f"the adapter brings its own {name}; merge it with PEFT's merge_and_unload and give the merged model"
            )
    return read_adapter(adapter)


# ---------------------------------------------------------------------------------------------- rewriting text


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise TargetRefusedError(f"{name} is not JSON: {str(error)[:200]}") from error


def _dump(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8")
    except UnicodeEncodeError as error:
        raise TargetRefusedError("a JSON file of the model holds half of a surrogate pair") from error


def _rewrite(data: bytes, name: str) -> bytes:
    """The same JSON in one spelling."""
    return _dump(_json(data, name))


def _without_telling_keys(data: bytes, name: str) -> bytes:
    return _dump(_drop(_json(data, name), lambda key, _: key in _TELLING_KEYS))


def _without_names(data: bytes, name: str) -> bytes:
    """A model's configuration: no private key, no telling one, and no string that could be a path or hub id."""
    return _dump(_drop(_json(data, name), _is_telling))


def _is_telling(key: str, value: Any) -> bool:
    pathlike = isinstance(value, str) and ("/" in value or "\\" in value)
    return key in _TELLING_KEYS or key.startswith("_") or pathlike


def _drop(value: Any, telling: Callable[[str, Any], bool]) -> Any:
    if isinstance(value, dict):
        return {key: _drop(value[key], telling) for key in value if not telling(key, value[key])}
    if isinstance(value, list):
        return [_drop(one, telling) for one in value]
    return value


def _tokenizer(data: bytes, name: str) -> bytes:
    # Not deeper: inside, keys are tokens.
    value = _json(data, name)
    if not isinstance(value, dict):
        raise TargetRefusedError(f"{name} is not a JSON object")
    return _dump({key: value[key] for key in value if key in _TOKENIZER_KEYS})


def _as_it_is(data: bytes, name: str) -> bytes:
    return data


def _text(data: bytes, name: str) -> bytes:
    try:
        return data.decode("utf-8").encode("utf-8")
    except UnicodeDecodeError as error:
        raise TargetRefusedError(f"{name} is not UTF-8 text") from error


_COPIERS: Mapping[str, Callable[[bytes, str], bytes]] = {
    "config.json": _without_names,
    "generation_config.json": _without_names,
    "tokenizer_config.json": _without_telling_keys,
    "tokenizer.json": _tokenizer,
    "special_tokens_map.json": _rewrite,
    "added_tokens.json": _rewrite,
    "vocab.json": _rewrite,
    "chat_template.json": _rewrite,
    "merges.txt": _text,
    "vocab.txt": _text,
    "chat_template.jinja": _text,
    "tokenizer.model": _as_it_is,
    "spiece.model": _as_it_is,
}
