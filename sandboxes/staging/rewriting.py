"""Text files of a model, written anew so that they say what a loader needs and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marple.errors import TargetRefusedError
from marple.sandboxes.staging.weights import open_regular

__all__ = ["COPIERS", "dump", "from_json", "read_small", "resolve"]

_MAX_TEXT_BYTES = 256 * 1024 * 1024
_MAX_DIGITS = 40
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
# Older writers' names, and settings of how a model is run, which the worker sets itself.
_SAME_KEYS = {"torch_dtype": "dtype"}
_OF_NO_EFFECT = {"use_cache"}


def resolve(path: Path) -> Path:
    """The file itself: links are refused, except those the Hugging Face cache consists of."""
    if path.is_symlink():
        real = path.resolve()
        for cache in path.parent.resolve().parents:
            if cache.name.startswith("models--") and real.parent == cache / "blobs":
                return real
    return path


def read_small(path: Path) -> bytes:
    """The content of a text file.

    Raises:
        TargetRefusedError: it is no regular file, or larger than any such file should be.
    """
    with open_regular(path) as file:
        data = file.read(_MAX_TEXT_BYTES + 1)
    if len(data) > _MAX_TEXT_BYTES:
        raise TargetRefusedError(f"{path.name} is larger than {_MAX_TEXT_BYTES} bytes")
    return data


def from_json(data: bytes, name: str) -> Any:
    """The value in a JSON file.

    Raises:
        TargetRefusedError: it is not JSON.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise TargetRefusedError(f"{name} is not JSON: {str(error)[:200]}") from error


def _integer(text: str) -> int:
    # Python takes quadratic time for long ones, and refuses them by a limit that a user may have raised.
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def dump(value: Any) -> bytes:
    """A value as JSON in the one spelling all staged files have.

    Raises:
        TargetRefusedError: a string in it is not text.
    """
    try:
        return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8")
    except UnicodeEncodeError as error:
        raise TargetRefusedError("a JSON file of the model holds half of a surrogate pair") from error


def _rewrite(data: bytes, name: str) -> bytes:
    """The same JSON in one spelling."""
    return dump(from_json(data, name))


def _without_telling_keys(data: bytes, name: str) -> bytes:
    return dump(_in_order(_drop(from_json(data, name), lambda key, _: key in _TELLING_KEYS)))


def _without_names(data: bytes, name: str) -> bytes:
    """A model's configuration: no private key, no telling one, and no string that could be a path or hub id."""
    return dump(_in_order(_drop(from_json(data, name), _is_telling)))


def _in_order(value: Any) -> Any:
    """The same object with one name for each key, in order: how they were written tells what wrote them."""
    if not isinstance(value, dict):
        return value
    named = {_SAME_KEYS.get(key, key): one for key, one in value.items()}
    return dict(sorted((key, _in_order(one)) for key, one in named.items() if key not in _OF_NO_EFFECT))


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
    value = from_json(data, name)
    if not isinstance(value, dict):
        raise TargetRefusedError(f"{name} is not a JSON object")
    return dump({key: value[key] for key in value if key in _TOKENIZER_KEYS})


def _as_it_is(data: bytes, name: str) -> bytes:
    return data


def _text(data: bytes, name: str) -> bytes:
    try:
        return data.decode("utf-8").encode("utf-8")
    except UnicodeDecodeError as error:
        raise TargetRefusedError(f"{name} is not UTF-8 text") from error


COPIERS: Mapping[str, Callable[[bytes, str], bytes]] = {
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
"""How each text file of a model is copied; files with other names are not."""
