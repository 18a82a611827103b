"""What an attack is: something that is tried from inside, and how the host finds out whether it succeeded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.attacks.sandboxed import Arena

__all__ = ["ATTACKS", "BACKENDS", "Attack", "attack"]

BACKENDS = ("process", "bubblewrap", "docker")


@dataclass(frozen=True)
class Attack:
    """One attack; its name is that of the function which carries it out and judges it."""

    name: str
    tries: str
    succeeds: Callable[[Arena], bool]
    leaks: Mapping[str, str] = field(default_factory=dict)
    """Backends on which it succeeds by design, and why; that it still does is tested like everything else."""
    apart: Mapping[str, str] = field(default_factory=dict)
    """Backends to which it does not apply, and why."""
    control: str = "unconfined"
    """Where the same attack has to succeed: ``unconfined``, ``careless``, or ``none: `` and why nowhere."""
    root_only: bool = False
    """Whether the control needs root, because an ordinary user's rights alone prevent it."""

    def leaks_on(self, backend: str) -> bool:
        """Whether it is expected to succeed there; what needs root does not for an ordinary user."""
        return backend in self.leaks and (os.geteuid() == 0 or not self.root_only)

    def outcome(self, backend: str) -> str:
        """What is expected, in words for the table."""
        if backend in self.apart:
            return f"not applicable: {self.apart[backend]}"
        return f"documented leak: {self.leaks[backend]}" if backend in self.leaks else "held"


ATTACKS: dict[str, Attack] = {}


def attack(
    tries: str,
    *,
    leaks: Mapping[str, str] | None = None,
    apart: Mapping[str, str] | None = None,
    control: str = "unconfined",
    root_only: bool = False,
) -> Callable[[Callable[[Arena], bool]], Callable[[Arena], bool]]:
    """Make an attack of the function that carries it out and says whether it succeeded."""

    def note(function: Callable[[Arena], bool]) -> Callable[[Arena], bool]:
        name = function.__name__
        ATTACKS[name] = Attack(name, tries, function, leaks or {}, apart or {}, control, root_only)
        return function

    return note
