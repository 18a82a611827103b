"""Investigator ``scripted-whitebox``: the ladder without a language model, a general method for each kind."""

from __future__ import annotations

from marple.agent.investigator import Investigator, ScriptInvestigator
from marple.agent.investigators import Entry, Options
from marple.agent.methods import find_method

__all__ = ["INVESTIGATOR"]


def _make(options: Options) -> Investigator:
    return ScriptInvestigator("scripted-whitebox", find_method(options.kind.name, "whitebox"))


INVESTIGATOR = Entry(
    "scripted-whitebox", "no language model: activation differences, steering, confirmation", False, _make
)
