"""Make text that comes out of a model safe to read: quoted, with everything invisible made visible.

The result is a valid JSON string that decodes to the original text. Control, bidirectional, zero-width, tag
and private-use characters appear as escapes, and so does the first character of anything that could be taken
for markup or for a chat template's special token.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable

__all__ = ["READ_ON", "fit_lines", "quote"]

READ_ON = "read_result shows them"
"""Said behind the count of everything that a text leaves out and the data of the result holds."""

_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks that render as nothing: fillers, braille blank, variation selectors.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_MARKUP = re.compile(r"<(?=[/|<!?A-Za-z\uff5c])|\[(?=/?(?:INST|SYS|TOOL)[A-Z_]*\])")


def quote(text: str, *, special_tokens: Collection[str] = (), limit: int | None = None) -> str:
    """A JSON string literal of ``text`` in which nothing is invisible.

    Args:
        text: any string, lone surrogates included.
        special_tokens: the tokenizer's special tokens; their first character is escaped.
        limit: longest number of characters shown; what is cut is counted behind the closing quote.
    """
    kept = text if limit is None or len(text) <= limit else text[:limit]
    marked = {match.start() for match in _MARKUP.finditer(kept)}
    for token in special_tokens:
        if token.strip():
            marked.update(match.start() for match in re.finditer(re.escape(token), kept))
    body = "".join(_escape(character) if at in marked else _show(character) for at, character in enumerate(kept))
    cut = len(text) - len(kept)
    return f'"{body}"' + (f" (+{cut} characters)" if cut else "")


def fit_lines(lines: Iterable[str], *, limit: int = 4000) -> str:
    """As many lines as fit into ``limit`` characters, and a last line that counts the others."""
    kept: list[str] = []
    left_out = size = 0
    for line in lines:
        if left_out or size + len(line) + 1 > limit:
            left_out += 1
        else:
            kept.append(line)
            size += len(line) + 1
    if left_out:
        kept.append(f"({left_out} more line{'s' * (left_out != 1)}: {READ_ON})")
    return "\n".join(kept)


def _show(character: str) -> str:
    if " " < character < "\x7f" and character not in '"\\' or character == " ":
        return character
    if character < "\x80":
        return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"
    category = unicodedata.category(character)
    hidden = category in _INVISIBLE_CATEGORIES or category == "Zs" or _BLANK.match(character)
    return _escape(character) if hidden else character


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
