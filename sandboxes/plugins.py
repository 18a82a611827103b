"""Tool files of the user's own, read on the host without running them: only a worker imports what is in them.

A file may hold any number of functions under ``@tool`` (see ``marple.tools.contract``).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from marple.errors import UsageError
from marple.sandboxes.staging.rewriting import read_small
from marple.tools.contract import family_of

__all__ = ["Plugin", "PluginTool", "declared_tools", "read_plugin"]


@dataclass(frozen=True)
class PluginTool:
    """A tool as its file declares it."""

    name: str
    rung: int
    needs: tuple[str, ...] = ()
    family: str = ""
    docstring: str = ""


@dataclass(frozen=True)
class Plugin:
    """A tool file, and what it was when it was read."""

    path: Path
    sha256: str
    tools: tuple[PluginTool, ...]

    def check_unchanged(self) -> None:
        """Refuse a file that is not what it was.

        Raises:
            UsageError: it is gone or has another content.
        """
        now = hashlib.sha256(_content(self.path)).hexdigest()
        if now != self.sha256:
            raise UsageError(
                f"the tool plugin {str(self.path)!r} has changed since this began (SHA-256 {self.sha256[:12]} then, "
                f"{now[:12]} now): put the earlier file back, or begin anew"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the texts of the tools are left out."""
        tools = [{"name": one.name, "rung": one.rung, "family": one.family} for one in self.tools]
        return {"path": str(self.path), "sha256": self.sha256, "tools": tools}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """What `to_dict` made these of; the file is not read."""
        return cls(Path(said["path"]), said["sha256"], tuple(PluginTool(**one) for one in said["tools"]))


def read_plugin(path: Path) -> Plugin:
    """A tool file and the tools in it.

    Raises:
        UsageError: it is not there, is not Python, or holds no tool or one without a docstring.
    """
    content = _content(path)
    try:
        tools = tuple(declared_tools(content))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"the tool plugin {str(path)!r} is not Python{line}: {said}") from error
    if not tools:
        raise UsageError(
            f"the tool plugin {str(path)!r} holds no tool: a tool is a function with a docstring under @tool(rung=...)"
        )
    for tool in tools:
        if not tool.docstring:
            raise UsageError(f"the tool {tool.name} in {str(path)!r} has no docstring; what it does is told by that")
    return Plugin(path.resolve(), hashlib.sha256(content).hexdigest(), tools)


def _content(path: Path) -> bytes:
    if not path.exists():
        raise UsageError(f"there is no tool plugin {str(path)!r}; it is a Python file with functions under @tool")
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"the tool plugin {str(path)!r} is not a Python file: its name must end in .py")
    try:
        return read_small(path)
    except OSError as error:
        raise UsageError(f"the tool plugin {str(path)!r} cannot be read: {error.strerror}") from error


# ---------------------------------------------------------------------------------------------- reading Python


def declared_tools(source: str | bytes) -> Iterator[PluginTool]:
    """The functions under ``@tool`` on the first level of a module.

    Raises:
        SyntaxError, ValueError: the source is not Python.
    """
    module = ast.parse(source)
    names = {"tool"} | {
        alias.asname or alias.name
        for node in module.body
        if isinstance(node, ast.ImportFrom) and node.module == "marple.tools.contract"
        for alias in node.names
        if alias.name == "tool"
    }
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and _called(mark) in names:
                    yield _tool(node, mark)


def _called(mark: ast.Call) -> str:
    return mark.func.attr if isinstance(mark.func, ast.Attribute) else ast.unparse(mark.func)


def _tool(function: ast.FunctionDef, mark: ast.Call) -> PluginTool:
    said = {one.arg: one.value for one in mark.keywords}
    rung = _value(said.get("rung"), int, 0)
    needs = tuple(one for one in _value(said.get("needs"), (tuple, list), ()) if isinstance(one, str))
    family = _value(said.get("family"), str, "") or family_of(rung, needs)
    return PluginTool(function.name, rung, needs, family, ast.get_docstring(function) or "")


def _value(node: ast.expr | None, kind: type | tuple[type, ...], otherwise: Any) -> Any:
    """What a literal says; what is computed is not known before it runs."""
    try:
        found = otherwise if node is None else ast.literal_eval(node)
    except ValueError:
        return otherwise
    return found if isinstance(found, kind) else otherwise
