"""What each protection of each backend is good for: the attacks that succeed without it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from marple.sandboxes.backend import Backend

__all__ = ["MUTATIONS", "Mutation", "protections", "weaken"]


@dataclass(frozen=True)
class Mutation:
    """One protection taken away."""

    attacks: tuple[str, ...] = ()
    """Of these at least one has to succeed; on none of them may it be documented as a leak."""
    together: tuple[str, ...] = ()
    """Other protections that hold the same attacks, taken away with it."""
    unnoticed: str = ""
    """Why no attack of the suite can notice, where none can."""


def protections(backend: str) -> frozenset[str]:
    """What can be taken away from a backend."""
    found: frozenset[str] = importlib.import_module(f"marple.sandboxes.{backend}").PROTECTIONS
    return found


def weaken(backend: Backend, without: Iterable[str]) -> Backend:
    """The same backend with protections taken away."""
    weakened: Backend = dataclasses.replace(backend, without=frozenset(without))  # type: ignore[type-var]
    return weakened


MUTATIONS: Mapping[str, Mapping[str, Mutation]] = {
    "process": {},
    "bubblewrap": {},
    "docker": {},
}
