"""Investigator ``human``: a person at the terminal, with the same tools and budget."""

from __future__ import annotations

from typing import NoReturn

from marple.agent.investigators import Entry, Options
from marple.errors import UsageError

__all__ = ["INVESTIGATOR"]


def _make(options: Options) -> NoReturn:
    raise UsageError("a person plays at a terminal: marple run CASE --investigator human")


INVESTIGATOR = Entry("human", "a person at the terminal, with the same tools and budget", False, _make)
