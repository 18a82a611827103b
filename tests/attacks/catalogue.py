"""Every attack of the suite, in the order of the table."""

from __future__ import annotations

from tests.attacks.attack import ATTACKS
from tests.attacks.judged import code, network, privilege, processes, resources, secrets, state

__all__ = ["ATTACKS", "THEMES", "against", "of_theme"]

CODE = "Code written by an agent"

THEMES = {
    "Network": network,
    "Secrets": secrets,
    "Processes": processes,
    "Privilege": privilege,
    "Resources": resources,
    "State": state,
    CODE: code,
}


def of_theme(theme: str) -> list[str]:
    """The names of a theme's attacks."""
    module = THEMES[theme].__name__
    return [name for name, one in ATTACKS.items() if one.succeeds.__module__ == module]


def against(backend: str) -> list[str]:
    """The names of the attacks on a backend itself that apply to it."""
    names = [name for theme in THEMES if theme != CODE for name in of_theme(theme)]
    return [name for name in names if backend not in ATTACKS[name].apart]
