"""Run one program like a cell of a notebook, and say what went wrong in terms of its own lines."""

from __future__ import annotations

import ast
import linecache
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from marple.errors import ToolError

__all__ = ["NAME", "Outcome", "run_cell"]

NAME = "code"
"""What tracebacks call a program; a number follows where there are several."""

_OWN_ERRORS = re.compile(r"^marple\.(?:errors\.ToolError|tools\.code\.artifacts\.Unacceptable): ", re.MULTILINE)
_MOST_CHARACTERS = 8000
_LIBRARY_FRAMES = 2
"""Of consecutive frames in libraries, only the innermost ones are of interest."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended by itself."""

    kind: Literal["finished", "raised", "exited"]
    error: str = ""
    """The traceback, or the status of an exit."""


def run_cell(code: str, namespace: dict[str, Any], *, name: str) -> Outcome:
    """Run a program; the value of its last expression is printed unless it is None or a semicolon follows.

    Args:
        code: the program.
        namespace: its variables, kept and changed.
        name: what tracebacks call it: ``NAME``, perhaps with a number.
    """
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    try:
        body, last = _split(code, name)
        exec(body, namespace)
        if last is not None and (value := eval(last, namespace)) is not None:
            namespace["_"] = value
            print(repr(value))
    except SystemExit as error:
        status = 0 if error.code is None else error.code
        return Outcome("exited", f"status {status}" if isinstance(status, int) else f"{str(status)[:1000]}")
    except BaseException as error:
        return Outcome("raised", _told_somehow(error))
    return Outcome("finished")


def _split(code: str, name: str) -> tuple[Any, Any]:
    """The program without its last expression, and that expression."""
    tree = ast.parse(code, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not _ends_quietly(code):
        last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    return compile(tree, name, "exec"), None if last is None else compile(last, name, "eval")


def _ends_quietly(code: str) -> bool:
    return code.rstrip().endswith(";")


def _told_somehow(error: BaseException) -> str:
    try:
        return _told(error)
    except BaseException:  # exceptions of the program's own can be anything
        return f"{type(error).__name__}, which cannot be shown"


def _told(error: BaseException) -> str:
    """The traceback with the lines of the program, short library paths and none of what runs the program."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    for one in _chain(told):
        one.stack = traceback.StackSummary.from_list(_shortened(list(one.stack)))
    hint = _hint(error)
    text = "".join(told.format()).replace(", in <module>\n", "\n") + (f"({hint})\n" if hint else "")
    if len(text) > _MOST_CHARACTERS:
        half = _MOST_CHARACTERS // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"
    # What the API refuses is said with the line that asked for it and without where the exception lives.
    return _OWN_ERRORS.sub(lambda match: "ToolError: " if "ToolError" in match[0] else "ValueError: ", text)


def _chain(told: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    waiting: list[traceback.TracebackException | None] = [told]
    while waiting:
        one = waiting.pop()
        if one is not None:
            yield one
            waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]


def _shortened(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    kept: list[traceback.FrameSummary] = []
    library: list[traceback.FrameSummary] = []
    for frame in frames:
        if frame.filename.startswith(NAME):
            kept += [*library[-_LIBRARY_FRAMES:], frame]
            library = []
        elif not _is_ours(frame.filename):
            library.append(_renamed(frame))
    # Without a frame of the program it never began: its syntax is wrong.
    return kept + library[-_LIBRARY_FRAMES:] if kept else []


def _is_ours(filename: str) -> bool:
    return filename.startswith(str(Path(__file__).parents[1]))


def _renamed(frame: traceback.FrameSummary) -> traceback.FrameSummary:
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return traceback.FrameSummary(_short(frame.filename), frame.lineno, frame.name, line=line)


def _short(filename: str) -> str:
    paths = sysconfig.get_paths()
    roots = [*sys.path, paths["purelib"], paths["platlib"], paths["stdlib"], sys.prefix, sys.base_prefix]
    for root in sorted(filter(None, roots), key=len, reverse=True):
        if filename.startswith(f"{root}/"):
            return filename[len(root) + 1 :]
    return Path(filename).name


def _hint(error: BaseException) -> str:
    try:
        said = str(error)[:300]
    except Exception:  # a class of the program's own
        return ""
    if isinstance(error, ToolError):
        return ""
    if isinstance(error, MemoryError) or "can't allocate memory" in said or "Cannot allocate memory" in said:
        return "out of memory: each process has 4 GiB beside the model; work on fewer prompts or layers at once"
    if isinstance(error, OSError) and error.errno == 28:
        return "the disk of a call is full: it holds 64 MiB in memory; use save() for results"
    if isinstance(error, OSError) and error.errno == 27:
        return "a file may have 48 MiB"
    if isinstance(error, PermissionError):
        return "the sandbox allows files in the current directory only, and no network"
    if isinstance(error, BlockingIOError):
        return "the sandbox allows 64 processes and threads"
    return ""
