"""What tools there are and what one of them takes, without a target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marple.errors import UnknownNameError

if TYPE_CHECKING:
    from marple.sandboxes.plugins import PluginTool
    from marple.tools.contract import ToolSpec

__all__ = ["find_tool", "list_tools", "shell_word", "show_tool"]


def list_tools(own: Sequence[PluginTool], *, as_json: bool) -> None:
    """Print a line for each tool, the user's own among them."""
    from marple.tools.contract import discover_tools

    specs: list[ToolSpec | PluginTool] = [*discover_tools().values(), *own]
    if as_json:
        print(json.dumps([{**_facts(spec), "summary": _summary(spec)} for spec in specs]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("tool", "rung", "needs", "what it does", box=None)
    for spec in sorted(specs, key=lambda spec: (spec.rung, spec.name)):
        table.add_row(spec.name, str(spec.rung), ", ".join(spec.needs), _summary(spec))
    Console(highlight=False, markup=False).print(table)


def find_tool(name: str, own: Sequence[PluginTool]) -> ToolSpec | PluginTool:
    """The tool with this name.

    Raises:
        UnknownNameError: there is none.
    """
    from marple.tools.contract import discover_tools

    tools: dict[str, ToolSpec | PluginTool] = {**discover_tools(), **{tool.name: tool for tool in own}}
    if name not in tools:
        raise UnknownNameError("tool", name, tools)
    return tools[name]


def show_tool(spec: ToolSpec | PluginTool, *, as_json: bool) -> None:
    """Print what a tool does and takes; of one of the user's own its docstring, for only a worker runs its file."""
    schema = getattr(spec, "parameters", None)
    example = getattr(spec, "example", None)
    if as_json:
        facts = {**_facts(spec), "description": _text(spec), "parameters": schema, "example": example}
        print(json.dumps(facts))
        return
    # The description ends with the example, which stands by itself below.
    print(f"{_text(spec).partition(chr(10) * 2 + 'Example: ')[0]}\n")
    print(f"Rung {spec.rung}." + (f" Needs {' and '.join(spec.needs)}." if spec.needs else ""))
    if schema is not None and example is not None:
        print(f"\nArguments:\n{json.dumps(schema, indent=2, ensure_ascii=False)}")
        print(f"\nExample:\nmarple tool {spec.name} --target nano-01 --args '{shell_word(example)}'")


def shell_word(value: Mapping[str, Any]) -> str:
    """JSON as it stands between single quotes in a shell."""
    return json.dumps(value, ensure_ascii=False).replace("'", "'\\''")


def _text(spec: ToolSpec | PluginTool) -> str:
    from marple.tools.visible import visible

    text: str = getattr(spec, "description", "") or getattr(spec, "docstring", "")
    return visible(text, lines=True)


def _summary(spec: ToolSpec | PluginTool) -> str:
    return _text(spec).split("\n")[0]


def _facts(spec: ToolSpec | PluginTool) -> dict[str, Any]:
    return {"name": spec.name, "rung": spec.rung, "needs": list(spec.needs)}
