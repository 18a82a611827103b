"""The reference in Python: signatures and docstrings of public names, read without importing their modules."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FACES = (
    "marple",
    "marple.agent.run",
    "marple.agent.configuration",
    "marple.agent.models",
    "marple.tasks.kind",
    "marple.tasks.case",
    "marple.tasks.truth",
    "marple.tasks.ranked",
    "marple.tasks.organisms",
    "marple.traces",
    "marple.sandboxes",
    "marple.tools.contract",
    "marple.tools.calls",
    "marple.tools.target.target",
    "marple.tools.vectors.vector",
    "marple.tools.vectors.files",
    "marple.errors",
)
"""The modules whose public names are listed, top to bottom."""
INTRODUCTION = """# Python

The public names of the packages with their signatures and docstrings, as they are in the code.
"""
SECTIONS = ("Args", "Returns", "Raises", "Yields", "Example")


@dataclass(frozen=True)
class Found:
    """Where a public name is defined."""

    node: ast.stmt
    doc: str
    """Its docstring, or the text under an assignment."""


def python_page() -> str:
    """The page, in Markdown."""
    return "\n".join([INTRODUCTION, *(face_section(name) for name in FACES)])


def face_section(name: str) -> str:
    """One module: its docstring and its public names."""
    tree = tree_of(name)
    parts = [f"## {name}\n", prose(ast.get_docstring(tree) or "")]
    for public in public_names(tree):
        found = find(name, public)
        if found is not None:
            # Underscores around a name would be read as Markdown in an anchor.
            parts.append(entry(f"{name}.{public.strip('_')}", public, found))
    return "\n".join(parts)


def tree_of(module: str) -> ast.Module:
    """The syntax tree of a module.

    Raises:
        RuntimeError: there is no such module.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"there is no module {module}")
    return ast.parse(Path(spec.origin).read_text("utf-8"))


def public_names(tree: ast.Module) -> list[str]:
    """What ``__all__`` lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def find(module: str, name: str) -> Found | None:
    """The definition behind a public name, followed through imports within the package; None for another's."""
    tree = tree_of(module)
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("marple"):
            if any((alias.asname or alias.name) == name for alias in statement.names):
                return find(str(statement.module), name)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if statement.name == name:
                return Found(statement, ast.get_docstring(statement) or "")
        elif name in assigned(statement):
            return Found(statement, text_of(following))
    return None


def assigned(statement: ast.stmt | None) -> list[str]:
    """The names that are assigned or declared; none for another statement."""
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else []
    if isinstance(statement, ast.Assign):
        targets = [one for target in statement.targets for one in getattr(target, "elts", [target])]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def text_of(statement: ast.stmt | None) -> str:
    """The text of a statement that is nothing but a string: what documents the assignment above it."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def entry(anchor: str, name: str, found: Found) -> str:
    """One public name: heading, signature, docstring; for a class its fields and public methods too."""
    parts = [f"### `{name}` {{ #{anchor} }}\n", f"```python\n{signature(found.node)}\n```\n", prose(found.doc)]
    if isinstance(found.node, ast.ClassDef):
        parts += members(found.node)
    return "\n".join(parts)


def signature(node: ast.stmt) -> str:
    """How it is called, or what it is; long ones one argument a line."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        line = f"{start} {node.name}({ast.unparse(node.args)}){returns}"
        return line if len(line) <= 100 else f"{start} {node.name}(\n{one_a_line(node.args)}\n){returns}"
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    text = ast.unparse(node)
    return text if len(text) <= 400 else f"{', '.join(assigned(node))} = ..."


def one_a_line(arguments: ast.arguments) -> str:
    """The arguments of a long signature."""
    text, depth, lines = ast.unparse(arguments), 0, [""]
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            lines[-1] += ","
            lines.append("")
        else:
            lines[-1] += character
    return "\n".join(f"    {line.strip()}" for line in lines)


def members(node: ast.ClassDef) -> Iterator[str]:
    """Fields with what is said under them, then public methods."""
    rows = []
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        public = [name for name in assigned(statement) if not name.startswith("_")]
        if isinstance(statement, ast.AnnAssign) and public:
            rows.append(f"- `{ast.unparse(statement)}` {' '.join(inline(text_of(following)).split())}".rstrip())
    if rows:
        yield "\n".join(rows) + "\n"
    for method in node.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not method.name.startswith("_"):
            yield f"**{node.name}.{method.name}**\n\n```python\n{signature(method)}\n```\n"
            yield prose(ast.get_docstring(method) or "")


def prose(doc: str) -> str:
    """A Google docstring as Markdown: sections become lists, roles and literal blocks plain code."""
    lines, section = [], ""
    for line in doc.splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section = line.rstrip(":")
            lines += ["", f"**{section}**", ""]
        elif not section:
            lines.append(line if line.startswith("    ") else inline(re.sub(r"^::$", "", re.sub(r"::$", ":", line))))
        elif not line.startswith("    ") and line:
            section = ""
            lines += ["", inline(line)]
        else:
            lines.append(in_section(section, line))
    return "\n".join(lines) + "\n"


def in_section(section: str, line: str) -> str:
    """A line of a section: a list item begins where the indentation is least."""
    text = line.strip()
    if section == "Example" and text:
        return f"`{text}`"
    if not line.startswith("     ") and (named := re.match(r"([\w*.]+): (.*)", text)):
        return f"- `{named[1]}`: {inline(named[2])}"
    return f"  {inline(text)}" if text else ""


def inline(text: str) -> str:
    """Roles as plain code, and angle brackets that are not HTML."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    pieces = re.split(r"(``.+?``|`[^`]+`)", text)
    return "".join(piece if at % 2 else piece.replace("<", "&lt;") for at, piece in enumerate(pieces))
