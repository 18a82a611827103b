"""Investigator ``mcp``: an outside agent that plays through the Model Context Protocol."""

from __future__ import annotations

from typing import NoReturn

from marple.agent.investigators import Entry, Options
from marple.errors import UsageError

__all__ = ["INVESTIGATOR"]


def _make(options: Options) -> NoReturn:
    raise UsageError(
        "an MCP client plays through `marple serve-mcp CASE`, "
        "and goes on with an interrupted run by `marple serve-mcp --resume RUN`"
    )


INVESTIGATOR = Entry("mcp", "an outside agent plays through MCP: marple serve-mcp", False, _make)
