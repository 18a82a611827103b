"""Which backend a run takes: the one that was asked for, or the strongest that holds on this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from marple.errors import SandboxUnavailableError, UnknownNameError
from marple.sandboxes.backend import Backend, BackendStatus, find_backends
from marple.sandboxes.probing import status_of

__all__ = ["Chosen", "backends", "choose_backend"]


@dataclass(frozen=True)
class Chosen:
    """A backend that works here, and what it gives."""

    backend: Backend
    status: BackendStatus

    @property
    def python_refusal(self) -> str:
        """Why code written by an agent cannot run on it, '' where it can."""
        if self.backend.contains_code:
            return ""
        others = (name for name, other in find_backends().items() if other.contains_code)
        return (
            f"the sandbox backend {self.backend.name} does not contain code written by an agent "
            f"(those that do: {', '.join(others)}; marple sandbox probe shows what they lack here)"
        )


def backends(names: Collection[str] | None = None) -> dict[str, BackendStatus]:
    """What each backend, or each of these, gives on this machine, found out by starting it."""
    found = find_backends()
    return {name: status_of(backend) for name, backend in found.items() if names is None or name in names}


def choose_backend(name: str = "auto") -> Chosen:
    """The backend of this name, or with ``auto`` the strongest one that works here.

    Raises:
        UnknownNameError: there is no backend of this name.
        SandboxUnavailableError: it does not work here; the message says why.
    """
    found = find_backends()
    if name == "auto":
        return _strongest(found.values())
    if name not in found:
        raise UnknownNameError("sandbox backend", name, [*found, "auto"])
    status = status_of(found[name])
    if not status.available:
        raise SandboxUnavailableError(f"the {name} backend does not work on this machine: {status.reason}")
    return Chosen(found[name], status)


def _strongest(found: Iterable[Backend]) -> Chosen:
    reasons = []
    for backend in sorted((one for one in found if one.preference > 0), key=lambda one: -one.preference):
        status = status_of(backend)
        if status.available:
            return Chosen(backend, status)
        reasons.append(f"{backend.name}: {status.reason}")
    raise SandboxUnavailableError(f"no backend works on this machine ({'; '.join(reasons)})")
