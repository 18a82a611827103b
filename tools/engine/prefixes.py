"""Keys and values of prompts that were read before, found again by their tokens and the edits that touched them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from marple.tools.engine.requests import Request
from marple.tools.engine.slots import KeyValues

__all__ = ["Prefix", "PrefixCache", "edit_key", "first_edited"]

_BLOCK = 16


@dataclass(frozen=True, eq=False)
class Prefix:
    """One prompt that was read."""

    key: Hashable
    tokens: tuple[int, ...]
    stored: KeyValues
    hidden: Tensor | None
    """Final hidden state ``(d_model,)`` of the last token, if it was computed."""

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.stored)

    def copied(self) -> Prefix:
        """The same in memory of its own: views would keep the whole batch."""
        stored = [(keys.clone(), values.clone()) for keys, values in self.stored]
        return Prefix(self.key, self.tokens, stored, None if self.hidden is None else self.hidden.clone())


class PrefixCache:
    """The most recently used prefixes within a bound of memory.

    A prefix is found by blocks of 16 tokens and by its whole length. The key holds whatever else decides about keys and
    values: the adapter and the edits of prompt tokens.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._entries: OrderedDict[tuple[Hashable, tuple[int, ...]], Prefix] = OrderedDict()
        self._blocks: dict[Hashable, Prefix] = {}

    @property
    def bytes(self) -> int:
        """Memory held."""
        return self._held

    def whole(self, key: Hashable, tokens: tuple[int, ...]) -> Prefix | None:
        """The entry of exactly these tokens."""
        found = self._entries.get((key, tokens))
        if found is not None:
            self._entries.move_to_end((key, tokens))
        return found

    def longest(self, key: Hashable, tokens: tuple[int, ...], limit: int) -> tuple[Prefix, int] | None:
        """An entry that begins as these tokens do, and for how many of them, at most ``limit``."""
        best = None
        for length, name in _chain(key, tokens[:limit]):
            entry = self._blocks.get(name)
            if entry is None or entry.tokens[:length] != tokens[:length]:
                break
            best = entry
        if best is None:
            return None
        same = 0
        for mine, its in zip(tokens[:limit], best.tokens, strict=False):
            if mine != its:
                break
            same += 1
        self._entries.move_to_end((key, best.tokens))
        return best, same

    def add(self, prefix: Prefix) -> None:
        """Keep a copy of a prefix; what was not used for longest goes when memory is short."""
        name = (prefix.key, prefix.tokens)
        old = self._entries.pop(name, None)
        if old is not None:
            self._drop(old)
        if prefix.bytes > self._limit:
            return
        prefix = prefix.copied()
        self._entries[name] = prefix
        self._held += prefix.bytes
        for _, block in _chain(prefix.key, prefix.tokens):
            self._blocks[block] = prefix
        while self._held > self._limit:
            self._drop(self._entries.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._blocks.clear()
        self._held = 0

    def _drop(self, prefix: Prefix) -> None:
        self._held -= prefix.bytes
        for _, block in _chain(prefix.key, prefix.tokens):
            if self._blocks.get(block) is prefix:
                del self._blocks[block]


def _chain(key: Hashable, tokens: Sequence[int]) -> Iterator[tuple[int, Hashable]]:
    """Lengths of whole blocks, each with a name that depends on everything before its end."""
    name: Hashable = key
    for stop in range(_BLOCK, len(tokens) + 1, _BLOCK):
        name = hash((name, tuple(tokens[stop - _BLOCK : stop])))
        yield stop, (key, stop, name)


def edit_key(request: Request) -> Hashable:
    """What decides about the keys and values of a request's prompt, beside its tokens."""
    edits = tuple(
        (edit.fingerprint, () if edit.is_everywhere else len(request.prompt))
        for edit in request.interventions
        if edit.edits_prompt
    )
    return (request.adapted, edits)


def first_edited(request: Request) -> int:
    """The first position of the prompt that an edit touches, or the prompt's length."""
    length = len(request.prompt)
    first = length
    for edit in request.interventions:
        if edit.edits_prompt:
            touched = (at for at, token in enumerate(request.prompt[:first]) if edit.applies(at, token, length))
            first = min(first, next(touched, first))
    return first
