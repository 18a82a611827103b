"""Which of a case's tools a run offers: ablations by tool, by family, or by the highest rung."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from marple.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from marple.sandboxes.plugins import PluginTool
    from marple.tools.contract import ToolSpec

__all__ = ["check_choice", "check_left", "families", "offered_tools"]


def families() -> dict[str, list[str]]:
    """Every family of tools, as the tools declare it, with the names of its tools."""
    found: dict[str, list[str]] = {}
    for spec in _tools().values():
        found.setdefault(spec.family, []).append(spec.name)
    return dict(sorted(found.items()))


def offered_tools(
    affordances: Sequence[str],
    *,
    without: Sequence[str] = (),
    only: str | None = None,
    plugins: Sequence[PluginTool] = (),
) -> list[str]:
    """Those of a case's tools that are left, in the same order, and those of the user's own behind them.

    Args:
        affordances: names of the tools that the case allows. A tool that is neither Marple's own nor in ``plugins`` is
            in no family and on no known rung.
        without: names of tools or of families that are not offered.
        only: the highest rung that is offered (``1`` to ``4``), or the one family that is; None for all.
        plugins: tools of the user's own.

    Raises:
        UnknownNameError: a tool, a family or a rung that there is not.
    """
    affordances = [*affordances, *(tool.name for tool in plugins)]
    if not without and only is None:
        return affordances
    known: dict[str, ToolSpec | PluginTool] = {**_tools(), **{tool.name: tool for tool in plugins}}
    check_choice(without, only, affordances=affordances, plugins=plugins)
    return [
        name
        for name in affordances
        if name not in without
        and (name not in known or known[name].family not in without)
        and (only is None or (name in known and _within(known[name], only)))
    ]


def check_choice(
    without: Sequence[str],
    only: str | None,
    *,
    affordances: Sequence[str] = (),
    plugins: Sequence[PluginTool] = (),
) -> None:
    """Refuse names that mean nothing.

    Args:
        without: names of tools or of families.
        only: a rung or a family.
        affordances: further tools that may be named.
        plugins: tools of the user's own.

    Raises:
        UnknownNameError: the message has the valid names.
    """
    groups = {**families(), **{tool.family: [] for tool in plugins}}
    for name in without:
        if name not in groups and name not in _tools() and name not in affordances:
            hint = f"Families: {', '.join(groups)}. Tools: {', '.join(_tools())}."
            raise UnknownNameError("tool or family", name, {*groups, *_tools(), *affordances}, hint=hint)
    rungs = {str(spec.rung) for spec in _tools().values()}
    if only is not None and only not in rungs | groups.keys():
        raise UnknownNameError("rung or family", only, rungs | groups.keys())


def check_left(
    affordances: Sequence[str],
    *,
    case: str,
    without: Sequence[str],
    only: str | None,
    plugins: Sequence[PluginTool] = (),
) -> None:
    """Refuse a choice that leaves nothing to experiment with.

    Raises:
        UsageError: it leaves none of the case's tools.
    """
    if not offered_tools(affordances, without=without, only=only, plugins=plugins):
        said = [f"--without {name}" for name in without] + ([f"--only {only}"] if only is not None else [])
        raise UsageError(f"{' '.join(said)} leaves no tool of the case {case}; it has: {', '.join(affordances)}")


def _within(spec: ToolSpec | PluginTool, only: str) -> bool:
    return spec.rung <= int(only) if only.isdigit() else spec.family == only


@functools.cache
def _tools() -> Mapping[str, ToolSpec]:
    # Reading the tools' signatures imports torch, which a run without such a choice does not need here.
    from marple.tools.code.tool import python_spec
    from marple.tools.contract import discover_tools

    code = python_spec()
    return {**discover_tools(), code.name: code}
