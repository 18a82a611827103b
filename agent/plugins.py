"""Which tool files of the user's own a run, an evaluation or a call takes along; nothing here runs them."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from marple.agent.forecasting import FORECAST_TOOL
from marple.agent.notebook_forms import TOOLS
from marple.errors import UsageError
from marple.sandboxes.plugins import Plugin, PluginTool, declared_tools, read_plugin

__all__ = ["PLUGINS_VARIABLE", "named_plugins", "tools_of"]

PLUGINS_VARIABLE = "MARPLE_PLUGINS"
"""Names tool files, separated like ``$PATH``."""

_OF_THE_HARNESS = {*TOOLS, "submit", FORECAST_TOOL.name, "python", "brief", "status"}


def named_plugins(given: Sequence[Path] = (), *, endpoint: bool = False) -> tuple[Plugin, ...]:
    """The tool files in ``MARPLE_PLUGINS`` and those that are given, each once.

    Args:
        given: named for this run alone.
        endpoint: whether the target is one; then there is no worker that could run them.

    Raises:
        UsageError: one is not there, is not Python or holds no tool, a tool has a name that is taken, or one is given
            for an endpoint.
    """
    if endpoint:
        if given:
            raise UsageError(f"a target that is an endpoint takes no --plugin {given[0]}: no worker runs for it")
        return ()
    said = [Path(part) for part in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if part]
    plugins = {plugin.path: plugin for plugin in map(read_plugin, (*said, *given))}
    taken = dict.fromkeys(_OF_THE_HARNESS | _own_tools(), "Marple's own")
    for plugin in plugins.values():
        for tool in plugin.tools:
            if tool.name in taken:
                raise UsageError(
                    f"the tool {tool.name} in {str(plugin.path)!r} has a name that is taken: there is "
                    f"{taken[tool.name]}; call the function otherwise"
                )
            taken[tool.name] = f"one in {str(plugin.path)!r}"
    return tuple(plugins.values())


def tools_of(plugins: Iterable[Plugin]) -> tuple[PluginTool, ...]:
    """All tools of these files."""
    return tuple(tool for plugin in plugins for tool in plugin.tools)


@functools.cache
def _own_tools() -> frozenset[str]:
    """Names of Marple's own tools, without importing them."""
    folder = resources.files("marple.tools").joinpath("experiments")
    files = [file for file in folder.iterdir() if file.name.endswith(".py")]
    return frozenset(tool.name for file in files for tool in declared_tools(file.read_bytes()))
