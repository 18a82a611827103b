"""The table of attacks by backend in ``docs/security.md``.

``python -m tests.attacks.table`` runs the suite and, where every attack ended as the suite says on every backend,
writes the table; ``--no-run`` writes it from the suite's word alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.attacks.attack import BACKENDS
from tests.attacks.catalogue import ATTACKS, THEMES, of_theme
from tests.attacks.mutations import MUTATIONS

__all__ = ["BEGIN", "END", "PAGE", "table"]

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- attacks:begin -->\n", "<!-- attacks:end -->\n"
_CONTROLS = {
    "unconfined": "without a sandbox",
    "careless": "in a careless bubblewrap",
}


def table() -> str:
    """The whole table as Markdown, with a line of numbers before it."""
    notes: list[str] = []
    rows = []
    for theme in THEMES:
        rows.append(f"| **{theme}** |" + " |" * (len(BACKENDS) + 2))
        for name in of_theme(theme):
            one = ATTACKS[name]
            outcomes = [_cell(one.outcome(backend), notes) for backend in BACKENDS]
            rows.append(f"| `{name}` | {one.tries} | {' | '.join(outcomes)} | {_cell(_control(name), notes)} |")
    head = ["attack", "what it tries", *(f"`{backend}`" for backend in BACKENDS), "control: succeeds"]
    lines = [_summary(), "", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows, ""]
    lines += [f"{number}. {note[0].upper()}{note[1:]}." for number, note in enumerate(notes, 1)]
    return "\n".join([*lines, "", *_protections()]) + "\n"


def _protections() -> list[str]:
    """What each protection is good for: the attacks that succeed where it is taken away."""
    lines = ["What was taken away, and the attack that succeeded then:", ""]
    lines += ["| backend | taken away | succeeds |", "|---|---|---|"]
    for backend, removed in MUTATIONS.items():
        for name, one in removed.items():
            away = " and ".join(f"`{each}`" for each in (name, *one.together))
            attacks = ", ".join(f"`{attack}`" for attack in one.attacks)
            lines.append(f"| `{backend}` | {away} | {attacks or f'no attack notices: {one.unnoticed}'} |")
    return [*lines, "", "Two are taken away together where each alone holds the attack."]


def _summary() -> str:
    tried = sum(backend not in one.apart for one in ATTACKS.values() for backend in BACKENDS)
    leaks = sum(len(one.leaks) for one in ATTACKS.values())
    controls = sum(not one.control.startswith("none") for one in ATTACKS.values())
    return (
        f"{len(ATTACKS)} attacks, {controls} of them with a positive control. Tried on each backend they apply to, "
        f"{tried} in all: {tried - leaks} held, {leaks} succeed and are documented."
    )


def _control(name: str) -> str:
    control = ATTACKS[name].control
    return _CONTROLS.get(control) or f"no control{control.removeprefix('none')}"


def _cell(outcome: str, notes: list[str]) -> str:
    """An outcome, with its reason as a note below the table."""
    what, _, why = outcome.partition(": ")
    if not why:
        return what
    if why not in notes:
        notes.append(why)
    shown = {"documented leak": "**leak**", "not applicable": "–", "no control": "–"}
    return f"{shown.get(what, what)} ({notes.index(why) + 1})"


def write() -> None:
    """Put the table between the page's two markers."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run and write."""
    if "--no-run" not in arguments:
        here = Path(__file__).parent
        suites = [here / f"test_{name}.py" for name in ("controls", *BACKENDS, "code_bubblewrap", "code_docker")]
        result = pytest.main(["-q", "-n0", "-p", "no:cacheprovider", *map(str, suites)])
        if result != 0:
            print("the table was not written: the suite's word does not hold here", file=sys.stderr)
            return int(result)
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
