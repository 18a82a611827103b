"""Look for words of the ground truth in what a worker will be able to read.

A tokenizer's vocabulary holds the answer's words as it holds all others, so a word alone proves nothing: what occurs
in the same place of the reference is public, and everything else is a leak.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from marple.errors import LeakError
from marple.sandboxes.staging.weights import read_weights

__all__ = ["check_keys", "check_leaks"]

_SUBSTRING_LENGTH = 5
_TEXT = {".jinja", ".txt", ".py", ".md"}
_ARCHIVES = {".npz", ".pt"}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f\ufffd]+")
_UNSEEN = {"Cf", "Mn", "Me"}
_Place = tuple[str, str, str]


def check_leaks(
    folder: Path, forbidden: Collection[str], *, public: Path | None = None, skip: Collection[str] = ()
) -> None:
    """Search names and text of every file in a folder.

    Words of five letters and more are found inside longer words too; parts of a phrase may be joined by anything
    that is neither letter nor digit. Case, accents, wide letters and invisible characters do not matter.

    Args:
        folder: what is searched: JSON keys and strings, templates, tokenizer models, tensor names, file names.
        forbidden: words and phrases of the ground truth.
        public: a folder of the same shape; what occurs there in the same place and text is no leak.
        skip: names of files whose content is not searched.

    Raises:
        LeakError: a word was found; names the file and the word, not the text around it.
    """
    pattern = _pattern(forbidden)
    if pattern is None:
        return
    found = _hits(folder, pattern, skip)
    known = _hits(public, pattern) if public is not None else {}
    for place, word in found.items():
        if place not in known:
            unlike = "with no reference to show that it is public" if public is None else "where its reference does not"
            raise LeakError(f"{place[0]} of the staged model holds {word!r}, a word of the ground truth, {unlike}")


def check_keys(path: Path, forbidden: Collection[str]) -> None:
    """Search the keys, not the texts, in a file with one JSON object a line.

    Raises:
        LeakError: a key holds a word of the ground truth; names the word.
    """
    pattern = _pattern(forbidden)
    if pattern is None:
        return
    for where, text in _lines_of_json(path):
        match = _match(pattern, text) if where.endswith("/key") else None
        if match is not None:
            raise LeakError(f"a key in {path.name} of the staged files holds {match!r}, a word of the ground truth")


def _pattern(forbidden: Collection[str]) -> re.Pattern[str] | None:
    words = {word.strip().casefold() for word in forbidden}
    parts = []
    for word in sorted((word for word in words if len(word) > 1), key=len, reverse=True):
        pieces = [re.escape(piece) for piece in re.split(r"[\W_]+", word) if piece]
        if not pieces:
            continue
        body = r"[\W_]*".join(pieces)
        # Not \b: byte-level tokenizers write a space as a letter.
        bounded = len(word) < _SUBSTRING_LENGTH
        parts.append(rf"(?<![A-Za-z0-9]){body}(?![A-Za-z0-9])" if bounded else body)
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def _match(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text) or pattern.search(_CAMEL.sub(" ", text))
    if match is None and not text.isascii():
        # Wide letters, ligatures and accents are written as plain ones; what is invisible goes.
        plain = unicodedata.normalize("NFKD", text)
        match = pattern.search("".join(one for one in plain if unicodedata.category(one) not in _UNSEEN))
    return None if match is None else match.group().casefold()


def _hits(folder: Path, pattern: re.Pattern[str], skip: Collection[str] = ()) -> dict[_Place, str]:
    hits: dict[_Place, str] = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = path.relative_to(folder).as_posix()
        for where, text in [("name", name), *(() if path.name in skip else _strings(path))]:
            match = _match(pattern, text)
            if match is not None:
                # Shards may be cut differently; a tensor is in the same place whatever its file is called.
                file = "the weights" if path.suffix == ".safetensors" else name
                hits[file, where, text] = match
    return hits


def _strings(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".safetensors":
        yield from (("tensor", name) for name in read_weights(path).tensors)
    elif path.suffix == ".json":
        yield from _walk(json.loads(path.read_text(encoding="utf-8")), "")
    elif path.suffix == ".jsonl":
        yield from _lines_of_json(path)
    elif path.suffix in _ARCHIVES and zipfile.is_zipfile(path):
        yield from _in_archive(path)
    elif path.suffix in _TEXT:
        yield from (("line", line) for line in path.read_text(encoding="utf-8").splitlines())
    else:
        yield from _pieces(path.read_bytes())


def _lines_of_json(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield from _walk(json.loads(line), "")


def _in_archive(path: Path) -> Iterator[tuple[str, str]]:
    """Names of the entries, and the text in those that are not arrays of numbers."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            yield "entry", name
            if name.endswith(".pkl"):
                yield from _pieces(archive.read(name))


def _pieces(data: bytes) -> Iterator[tuple[str, str]]:
    yield from (("text", piece) for piece in _NOT_TEXT.split(data.decode("utf-8", "replace")))


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
