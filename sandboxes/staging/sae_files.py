"""Sparse autoencoders and lines of JSON, copied with nothing in names or settings that tells what they are of."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marple.errors import TargetRefusedError
from marple.sandboxes.staging.rewriting import dump, from_json, read_small, resolve
from marple.sandboxes.staging.weights import copy_weights, open_regular, read_weights

__all__ = ["CARDS", "copy_lines", "copy_sae"]

CARDS = "cards.jsonl"
"""The file with the examples on which features fire."""

_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_MAX_LINE_BYTES = 64 * 1024 * 1024
# Numbers stay; of the words in a configuration only those that decide what is computed, and where.
_WORDS = {
    "activation", "activation_fn", "activation_fn_str", "architecture", "dict_class", "dtype", "hf_hook_point_in",
    "hf_hook_point_out", "hook_name", "hook_name_out", "hook_point", "neuronpedia_id", "normalize_activations",
    "reshape_activations", "sae_lens_training_version", "sae_lens_version", "submodule_name", "trainer_class", "type",
}  # fmt: skip
# Some releases say by their folders alone where an SAE reads; these names are public.
_RELEASE = re.compile(
    r"gemma-scope[\w.-]*$|^(layer_\d+\w*|width_\w+|average_l0_\d+|embedding|canonical|clt\w*|crosscoder\w*)$"
    r"|^(resid_post|attn_out|mlp_out|transcoder)(_all)?$"
)


def copy_sae(source: Path, destination: Path) -> Path:
    """Copy the files of a sparse autoencoder; returns the directory they are in.

    Files with other names are left out. Settings are reduced to those that decide what is computed.

    Args:
        source: a directory in the format of SAELens, Gemma Scope or dictionary_learning.
        destination: is made; where the release's folders tell the site, they are made inside it.

    Raises:
        TargetRefusedError: there are no weights in a known format, or pickled ones.
    """
    if not source.is_dir():
        raise TargetRefusedError(f"there is no directory of a sparse autoencoder at {str(source)!r}")
    names = {path.name for path in source.iterdir()}
    if pickled := sorted(name for name in names - _COPIERS.keys() if name.endswith(_PICKLES)):
        raise TargetRefusedError(
            f"the sparse autoencoder {str(source)!r} has {pickled[0]}, which may be a pickle: loading one runs its "
            "code, so only safetensors, npz and the ae.pt of dictionary_learning are read; remove it or convert it"
        )
    if not names & _WEIGHTS:
        raise TargetRefusedError(
            f"{str(source)!r} holds no weights of a sparse autoencoder; looked for {', '.join(sorted(_WEIGHTS))}"
        )
    folder = destination.joinpath(*_release_folders(source))
    folder.mkdir(parents=True)
    for name in sorted(names & _COPIERS.keys()):
        _COPIERS[name](resolve(source / name), folder / name)
    return folder


def copy_lines(source: Path, destination: Path) -> Path:
    """Copy a file with one JSON object a line, written anew, one line in memory at a time; returns the copy.

    Raises:
        TargetRefusedError: a line is too long or something else; the message names it.
    """
    if not source.exists():
        raise TargetRefusedError(f"there is no file {str(source)!r}")
    with open_regular(resolve(source)) as lines, destination.open("xb") as copy:
        for number in itertools.count(1):
            line = lines.readline(_MAX_LINE_BYTES)
            if not line:
                return destination
            if line.strip():
                copy.write(_line(line, f"{source.name}, line {number}") + b"\n")
    return destination


def _line(line: bytes, where: str) -> bytes:
    value = from_json(line, where)
    if not isinstance(value, dict):
        raise TargetRefusedError(f"{where} is not a JSON object")
    try:
        return json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise TargetRefusedError(f"{where} holds half of a surrogate pair") from error


def _release_folders(source: Path) -> list[str]:
    return [match.group() for part in source.absolute().parts if (match := _RELEASE.search(part))]


def _settings(source: Path, copy: Path) -> None:
    copy.write_bytes(dump(_without_words(from_json(read_small(source), source.name))))


def _without_words(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_words(one) for key, one in value.items() if not isinstance(one, str) or key in _WORDS}
    if isinstance(value, list):
        return [_without_words(one) for one in value if not isinstance(one, str)]
    return value


def _safetensors(source: Path, copy: Path) -> None:
    copy_weights(read_weights(source), copy)


def _arrays(source: Path, copy: Path) -> None:
    """Arrays of numbers under the names they have, one in memory at a time."""
    import numpy as np

    open_regular(source).close()
    try:
        with np.load(source, allow_pickle=False) as arrays, zipfile.ZipFile(copy, "x") as made:
            for name in sorted(arrays.files):
                # Without a time of its own an entry gets the time of now.
                entry = zipfile.ZipInfo(f"{name}.npy")
                with made.open(entry, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, arrays[name], allow_pickle=False)
    except (ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise TargetRefusedError(f"{source.name} is not an npz file of plain numbers: {str(error)[:200]}") from error


def _as_it_is(source: Path, copy: Path) -> None:
    # The worker reads it with the loader that runs no code, and refuses what that does not take.
    with open_regular(source) as original, copy.open("xb") as made:
        shutil.copyfileobj(original, made, 4 * 1024 * 1024)


_WEIGHTS = frozenset(("sae_weights.safetensors", "params.safetensors", "params.npz", "ae.pt"))
_COPIERS: Mapping[str, Callable[[Path, Path], object]] = {
    "cfg.json": _settings,
    "config.json": _settings,
    "sae_weights.safetensors": _safetensors,
    "params.safetensors": _safetensors,
    "params.npz": _arrays,
    "ae.pt": _as_it_is,
    CARDS: copy_lines,
    "explanations.jsonl": copy_lines,
}
