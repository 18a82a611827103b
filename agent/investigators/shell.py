"""Investigator ``shell``: somebody outside, a person or an agent, who plays command by command."""

from __future__ import annotations

from typing import NoReturn

from marple.agent.investigators import Entry, Options
from marple.errors import UsageError

__all__ = ["INVESTIGATOR"]


def _make(options: Options) -> NoReturn:
    raise UsageError(
        "whoever plays from the shell begins with `marple play start CASE`, "
        "and goes on with an interrupted run by `marple play status RUN`"
    )


INVESTIGATOR = Entry("shell", "somebody outside plays command by command: marple play", False, _make)
