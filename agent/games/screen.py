"""One line from a person and one to them: prompts, completion, and results without the quotes of JSON."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from marple.tools.visible import visible

__all__ = ["Aside", "Completion", "ask", "chance", "harness", "readable", "show", "whole"]


class Aside(Exception):
    """The person has put the game aside."""


def ask(prompt: str) -> str:
    """One line from the person; Ctrl-C and the end of the input put the game aside.

    The loop waits meanwhile, which is right: nothing goes on in a game while its player thinks.
    """
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input(prompt)
    except (KeyboardInterrupt, EOFError):
        print()
        raise Aside from None
    finally:
        signal.signal(signal.SIGINT, before)


def whole(text: str) -> str:
    """A JSON object that is typed over several lines, up to where it closes or an empty line."""
    while text.lstrip().startswith("{"):
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            if error.pos < len(text.rstrip()):
                return text
            more = ask("... ")
            if not more.strip():
                return text
            text = f"{text}\n{more}"
        else:
            return text
    return text


def chance(prompt: str) -> float:
    """A probability, asked again until it is one."""
    while True:
        raw = ask(prompt).strip().replace("%", "")
        try:
            value = float(raw)
        except ValueError:
            value = -1.0
        if 0 <= value <= 1:
            return value
        show(f"  {raw!r} is not a number from 0 to 1; 0.5 says that you do not know")


def readable(view: str) -> str:
    """A result for a person: what the harness says first, then line by line what nobody vouches for, behind bars."""
    try:
        fields = json.loads(view)
    except ValueError:
        return view
    head = " · ".join(str(value) for name, value in fields.items() if not name.startswith("untrusted"))
    lines = [line for name, value in fields.items() if name.startswith("untrusted") for line in value]
    said = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    return "\n".join([visible(head, lines=True), *(f"| {visible(line, lines=True)}" for line in said)])


def harness(view: str) -> str:
    """What the harness says in a result."""
    try:
        return str(json.loads(view).get("harness", ""))
    except ValueError:
        return ""


def show(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


class Completion:
    """Completion by TAB where standard input is a terminal.

    Args:
        candidates: what the last word of a line may become.
    """

    def __init__(self, candidates: Callable[[str], Sequence[str]]) -> None:
        self._candidates = candidates
        self._readline: Any = None

    def __enter__(self) -> None:
        if not sys.stdin.isatty():
            return
        try:
            import readline
        except ImportError:  # a Python built without it
            return
        self._readline = readline
        readline.set_completer_delims(" ")
        readline.set_completer(self._word)
        readline.parse_and_bind("tab: complete")

    def __exit__(self, *exception: object) -> None:
        if self._readline is not None:
            self._readline.set_completer(None)

    def _word(self, text: str, state: int) -> str | None:
        line = self._readline.get_line_buffer()[: self._readline.get_endidx()]
        found = self._candidates(line)
        return found[state] if state < len(found) else None
