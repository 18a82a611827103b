"""YAML as plain values, with the line of each, so that a mistake in a file is told with its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from marple.errors import UnknownNameError, UsageError

__all__ = ["Located", "read_located"]

_MOST_BYTES = 4 * 2**20
_MOST_NODES = 200_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Located:
    """A value in a file, and where the values in it stand."""

    file: str
    value: Any
    path: Path_
    lines: Mapping[Path_, int]

    def fail(self, message: str, *at: str | int) -> NoReturn:
        """Raise a UsageError with the file and the line of this value, or of the one at a key in it."""
        path = (*self.path, *at)
        while path and path not in self.lines:
            path = path[:-1]
        raise UsageError(f"{self.file}:{self.lines[path]}: {message}")

    def mapping(self, what: str, allowed: Collection[str] | None = None) -> dict[str, Located]:
        """The values under its keys.

        Raises:
            UsageError: it is no mapping, or a key is not one of ``allowed``.
        """
        if not isinstance(self.value, dict):
            self.fail(f"{what} is {self.value!r:.60}, not a mapping from keys to values")
        for key in self.value:
            if not isinstance(key, str):
                self.fail(f"{what}: the key {key!r:.60} is no word", key)
            if allowed is not None and key not in allowed:
                self.fail(f"{what}: {UnknownNameError('key', key, allowed)}", key)
        return {key: self[key] for key in self.value}

    def items(self, what: str) -> list[Located]:
        """The values of a list; a single value stands for a list of one.

        Raises:
            UsageError: it is empty, or a mapping where values are meant.
        """
        if not isinstance(self.value, list):
            return [self]
        if not self.value:
            self.fail(f"{what} is an empty list")
        return [self[at] for at in range(len(self.value))]

    def text(self, what: str) -> str:
        """A text that is not empty.

        Raises:
            UsageError: it is something else.
        """
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail(f"{what} is {self.value!r:.60}, not a text; put quotes around it if it is one")
        return self.value

    def __getitem__(self, key: str | int) -> Located:
        return Located(self.file, self.value[key], (*self.path, key), self.lines)


def read_located(file: Path | Any, *, name: str | None = None) -> Located:
    """Read a YAML file.

    Args:
        file: a path, or a resource that can be opened like one.
        name: what messages call it.

    Raises:
        UsageError: it cannot be read, is no YAML, says a key twice, or is unreasonably large.
    """
    name = name or str(file)
    try:
        text = file.read_bytes()[: _MOST_BYTES + 1].decode("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} cannot be read: {error}") from error
    if len(text) > _MOST_BYTES:
        raise UsageError(f"{name} is larger than {_MOST_BYTES} bytes")
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise UsageError(f"{name}:1: the file is empty")
        lines: dict[Path_, int] = {}
        return Located(name, _value(node, (), lines, loader, name), (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UsageError(f"{name}:{mark.line + 1 if mark else 1}: this is no YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{name}: this is no YAML: {error}") from error
    finally:
        loader.dispose()


def _value(node: Any, path: Path_, lines: dict[Path_, int], loader: Any, name: str) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(lines) > _MOST_NODES:
        raise UsageError(f"{name}:{line}: more than {_MOST_NODES} values")
    if isinstance(node, yaml.SequenceNode):
        return [_value(one, (*path, at), lines, loader, name) for at, one in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else str(key_node.tag)
        lines[(*path, key)] = at = key_node.start_mark.line + 1
        if key in found:
            raise UsageError(f"{name}:{at}: the key {key!r} is there twice")
        found[key] = _value(value_node, (*path, key), lines, loader, name)
    return found
