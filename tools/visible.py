r"""Text whose author is not trusted, made safe to read: whatever would be invisible or act is shown as an escape.

``quote`` gives a JSON string that decodes to the original text, for a language model and for logs; ``visible`` gives
plain text for a terminal. Control, bidirectional, zero-width, tag and private-use characters, lone surrogates, letters
of another script inside a Latin word and heaps of combining marks appear as ``\uXXXX``. ``quote`` also escapes the
first character of whatever could be taken for markup or for a special token of a chat format, by its shape, since
nobody can list them all.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Iterator

__all__ = ["quote", "visible"]

_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
# Letters and marks that render as nothing: fillers, braille blank, variation selectors.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")

_MARKUP = "|".join(
    (
        # <|im_start|>, <s>, </s>, <start_of_turn>, <<SYS>>, </tool_result>, <0x0A>, <!--, and wide forms of "<".
        r"[<\uff1c\ufe64](?=[/|<!?#@$_A-Za-z\uff5c\u2581]|0x)",
        # [INST], [/INST], [TOOL_CALLS], [AVAILABLE_TOOLS], [gMASK], [UNUSED_TOKEN_1], [E12], [|user|]
        r"\[(?=/?g?[A-Z][A-Z0-9_ ]*\]|\||e~\[)",
        # Two families of formats that use neither: >>QUESTION<<, and ]~b] with [e~[
        r">(?=>[A-Z]+<<)",
        r"\](?=~!?b[\[\]])",
    )
)
# Beside marks: what is not printable ASCII, and the two characters that JSON escapes.
_QUOTED = rf"(?P<mark>{_MARKUP})|[^ !#-\[\]-~]"
_PLAIN = re.compile(_QUOTED)
_SHOWN = re.compile(r"[^ -~]")
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}

_WORD = re.compile(r"[^\W\d_]+")
_LATIN_LETTERS = 2
"""ASCII letters from which on a word counts as Latin: one letter beside a Greek one is a formula."""
_LOOKALIKE_SCRIPTS = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU")
_MARKS = 4
"""Combining marks on one letter that are shown as they are; scripts in use need no more."""


def quote(text: str, *, special_tokens: Collection[str] = (), limit: int | None = None) -> str:
    """A JSON string literal of ``text`` in which nothing is invisible and nothing looks like a chat format's token.

    Args:
        text: any string, lone surrogates included.
        special_tokens: the tokenizer's special tokens; their first character is escaped.
        limit: longest number of characters shown; what is cut is counted behind the closing quote.
    """
    kept = text if limit is None or len(text) <= limit else text[:limit]
    deceptive = set(_deceptive(kept))
    own = sorted(token for token in special_tokens if token.strip() and token in kept)
    pattern = re.compile(f"(?P<own>(?={'|'.join(map(re.escape, own))}).)|{_QUOTED}", re.DOTALL) if own else _PLAIN

    def show(match: re.Match[str]) -> str:
        character = match[0]
        if match.lastgroup or match.start() in deceptive:
            return _escape(character)
        return _SHORT.get(character) or (_escape(character) if character.isascii() else _shown(character))

    cut = len(text) - len(kept)
    return f'"{pattern.sub(show, kept)}"' + (f" (+{cut} characters)" if cut else "")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Plain text for a terminal: no escape sequence, no character that moves, hides or reorders others.

    Args:
        text: any string, lone surrogates included.
        lines: keep line feeds; otherwise they are shown as ``\n`` too.
    """
    deceptive = set(_deceptive(text))

    def show(match: re.Match[str]) -> str:
        character = match[0]
        if character == "\n" and lines:
            return character
        if match.start() in deceptive:
            return _escape(character)
        return _SHORT.get(character) or _shown(character)

    return _SHOWN.sub(show, text)


def _deceptive(text: str) -> Iterator[int]:
    """Places of letters that pose as Latin ones and of combining marks beyond what any script needs."""
    if text.isascii():
        return
    for word in _WORD.finditer(text):
        letters = word[0]
        if not letters.isascii() and sum(letter < "\x80" for letter in letters) >= _LATIN_LETTERS:
            yield from (word.start() + at for at, letter in enumerate(letters) if _is_lookalike(letter))
    run = 0
    for at, character in enumerate(text):
        run = run + 1 if character >= "\x80" and unicodedata.category(character) in ("Mn", "Me") else 0
        if run > _MARKS:
            yield at


@functools.lru_cache(maxsize=4096)
def _is_lookalike(letter: str) -> bool:
    return letter >= "\x80" and unicodedata.name(letter, "").startswith(_LOOKALIKE_SCRIPTS)


@functools.lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in _INVISIBLE_CATEGORIES or _BLANK.match(character)
    return _escape(character) if hidden else character


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
