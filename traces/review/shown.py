r"""Text of a trace made fit to be put into a page: nothing in it acts, hides or reorders what is read.

Control, bidirectional, zero-width, tag and private-use characters, blank letters, lone surrogates, letters of another
script inside a Latin word and heaps of combining marks appear as ``\uXXXX``; line feeds and tabs stay. Escaping for
HTML is the template's.

The rules are those of ``marple.tools.visible``, which a reader of traces does not import; a test holds both equal.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator

from markupsafe import Markup, escape

__all__ = ["LONGEST", "cut", "marked_up", "shown"]

LONGEST = 12_000
"""Characters of one text that a page shows; the rest is a link away."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_OTHER = re.compile(r"[^ -~\n\t]")
_WORD = re.compile(r"[^\W\d_]+")
_LATIN_LETTERS = 2
"""ASCII letters from which on a word counts as Latin: one letter beside a Greek one is a formula."""
_LOOKALIKE_SCRIPTS = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU")
_RUN_OF_MARKS = 4
"""Combining marks on one letter that are shown as they are; scripts in use need no more."""


def shown(text: object) -> str:
    r"""``text`` with every character that could act or hide written as ``\uXXXX``."""
    string = text if isinstance(text, str) else str(text)
    if string.isascii() and string.isprintable():
        return string
    deceptive = set(_deceptive(string))
    return _OTHER.sub(lambda m: _escape(m[0]) if m.start() in deceptive else _visible(m[0]), string)


def marked_up(text: object) -> Markup:
    """The same as HTML in which those escapes stand out."""
    string = text if isinstance(text, str) else str(text)
    if string.isascii() and string.isprintable():
        return escape(string)
    deceptive = set(_deceptive(string))
    parts, at = [], 0
    for match in _OTHER.finditer(string):
        one = _escape(match[0]) if match.start() in deceptive else _visible(match[0])
        if one != match[0]:
            parts += [escape(string[at : match.start()]), Markup('<span class="esc">{}</span>').format(one)]
            at = match.end()
    return Markup("").join([*parts, escape(string[at:])])


def cut(text: str, limit: int = LONGEST) -> tuple[str, int]:
    """The beginning of ``text`` and how many characters follow it."""
    return (text, 0) if len(text) <= limit else (text[:limit], len(text) - limit)


def _deceptive(text: str) -> Iterator[int]:
    """Places of letters that pose as Latin ones, and of combining marks beyond what any script needs."""
    if text.isascii():
        return
    for word in _WORD.finditer(text):
        letters = word[0]
        if not letters.isascii() and sum(letter < "\x80" for letter in letters) >= _LATIN_LETTERS:
            yield from (word.start() + at for at, letter in enumerate(letters) if _is_lookalike(letter))
    run = 0
    for at, character in enumerate(text):
        run = run + 1 if character >= "\x80" and unicodedata.category(character) in ("Mn", "Me") else 0
        if run > _RUN_OF_MARKS:
            yield at


@functools.lru_cache(maxsize=4096)
def _is_lookalike(letter: str) -> bool:
    return letter >= "\x80" and unicodedata.name(letter, "").startswith(_LOOKALIKE_SCRIPTS)


@functools.lru_cache(maxsize=4096)
def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in _HIDDEN or _BLANK.match(character)
    return _escape(character) if hidden else character


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
