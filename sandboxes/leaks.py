"""Look for words of the ground truth in what a worker will be able to read.

A tokenizer's vocabulary holds the answer's words as it holds all others, so a word alone proves nothing: what occurs
in the same place of the reference is public, and everything else is a leak.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from marple.errors import LeakError
from marple.sandboxes.weights import read_weights

__all__ = ["check_leaks"]

_SUBSTRING_LENGTH = 5
_TEXT = {".jinja", ".txt", ".py", ".md"}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f\ufffd]+")
_Place = tuple[str, str, str]


def check_leaks(folder: Path, forbidden: Collection[str], *, public: Path | None = None) -> None:
    """Search names and text of every file in a folder.

    Words of five letters and more are found inside longer words too; parts of a phrase may be joined by anything
    that is neither letter nor digit. Case does not matter.

    Args:
        folder: what is searched: JSON keys and strings, templates, tokenizer models, tensor names, file names.
        forbidden: words and phrases of the ground truth.
        public: a folder of the same shape; what occurs there in the same place and text is no leak.

    Raises:
        LeakError: a word was found; names the file and the word, not the text around it.
    """
    words = {word.strip().casefold() for word in forbidden}
    pattern = _pattern({word for word in words if len(word) > 1})
    if pattern is None:
        return
    found = _hits(folder, pattern)
    known = _hits(public, pattern) if public is not None else {}
    for place, word in found.items():
        if place not in known:
            unlike = "with no reference to show that it is public" if public is None else "where its reference does not"
            raise LeakError(f"{place[0]} of the staged model holds {word!r}, a word of the ground truth, {unlike}")


def _pattern(words: Collection[str]) -> re.Pattern[str] | None:
    parts = []
    for word in sorted(words, key=len, reverse=True):
        pieces = [re.escape(piece) for piece in re.split(r"[\W_]+", word) if piece]
        if not pieces:
            continue
        body = r"[\W_]*".join(pieces)
        # Not \b: byte-level tokenizers write a space as a letter.
        bounded = len(word) < _SUBSTRING_LENGTH
        parts.append(rf"(?<![A-Za-z0-9]){body}(?![A-Za-z0-9])" if bounded else body)
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def _hits(folder: Path, pattern: re.Pattern[str]) -> dict[_Place, str]:
    hits: dict[_Place, str] = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = path.relative_to(folder).as_posix()
        for where, text in [("name", name), *_strings(path)]:
            match = pattern.search(text) or pattern.search(_CAMEL.sub(" ", text))
            if match is not None:
                # Shards may be cut differently; a tensor is in the same place whatever its file is called.
                file = "the weights" if path.suffix == ".safetensors" else name
                hits[file, where, text] = match.group().casefold()
    return hits


def _strings(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".safetensors":
        yield from (("tensor", name) for name in read_weights(path).tensors)
    elif path.suffix == ".json":
        yield from _walk(json.loads(path.read_text(encoding="utf-8")), "")
    elif path.suffix in _TEXT:
        yield from (("line", line) for line in path.read_text(encoding="utf-8").splitlines())
    else:
        text = path.read_bytes().decode("utf-8", "replace")
        yield from (("text", piece) for piece in _NOT_TEXT.split(text))


def _walk(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"{where}/key", key
            yield from _walk(inner, f"{where}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, f"{where}[]")
