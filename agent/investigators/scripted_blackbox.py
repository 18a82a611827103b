"""Investigator ``scripted-blackbox``: a method for each kind, without a language model, black-box tools only."""

from __future__ import annotations

from marple.agent.investigator import Investigator, ScriptInvestigator
from marple.agent.investigators import Entry, Options
from marple.agent.methods import find_method

__all__ = ["INVESTIGATOR"]


def _make(options: Options) -> Investigator:
    return ScriptInvestigator("scripted-blackbox", find_method(options.kind.name, "blackbox"))


INVESTIGATOR = Entry("scripted-blackbox", "no language model: battery, contrast, contexts, confirmation", False, _make)
