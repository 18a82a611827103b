"""The investigators, one module each.

A module defines ``INVESTIGATOR``, an ``Entry``; it is found without a registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from marple.agent.investigator import Investigator
from marple.errors import UnknownNameError, UsageError
from marple.tasks.kind import Kind

__all__ = ["Entry", "Options", "load_investigators", "open_investigator"]


@dataclass(frozen=True)
class Options:
    """What an investigator may be configured with."""

    kind: Kind
    model: str | None = None
    """Name of the language model, for example ``anthropic/NAME``."""
    base_url: str | None = None
    effort: str | None = None


@dataclass(frozen=True)
class Entry:
    """One investigator as the command line knows it."""

    name: str
    summary: str
    needs_model: bool | None
    """Whether it needs a language model; None where it can have one."""
    make: Callable[[Options], Investigator]


def load_investigators() -> dict[str, Entry]:
    """All investigators by name."""
    entries: dict[str, Entry] = {}
    for module in pkgutil.iter_modules(__path__):
        entry: Entry = importlib.import_module(f"{__name__}.{module.name}").INVESTIGATOR
        entries[entry.name] = entry
    return entries


def open_investigator(name: str, options: Options) -> Investigator:
    """The investigator with this name.

    Raises:
        UnknownNameError: there is none.
        UsageError: it needs a model and none is named, or it takes none.
    """
    entries = load_investigators()
    if name not in entries:
        raise UnknownNameError("investigator", name, entries)
    entry = entries[name]
    if entry.needs_model is True and options.model is None:
        raise UsageError(f"investigator {name} needs a model, for example --model openai-chat/NAME --base-url URL")
    if entry.needs_model is False and options.model is not None:
        raise UsageError(f"investigator {name} uses no language model; leave out --model {options.model}")
    return entry.make(options)
