"""The pieces of which the view of a tool's result is made; the templates draw each sort in one way."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from marple.traces.review.fields import number, text

__all__ = [
    "Block",
    "Card",
    "Cards",
    "Cell",
    "Chart",
    "Grid",
    "Heat",
    "Note",
    "Piece",
    "Series",
    "Table",
    "Token",
    "bar",
    "differing",
    "level",
    "share",
]

STEPS = 6
"""Shades of a heat map on either side of zero."""
_WORD = re.compile(r"\w+|\W+")

Piece = tuple[str, bool]
"""A stretch of text, and whether it stands out."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str = ""
    tone: str = ""
    """``good``, ``bad``, ``unsure``, ``num``, ``dim`` or ''."""
    bar: float | None = None
    """Length of a bar in it, from 0 to 1."""
    texts: Sequence[Sequence[Piece]] = ()
    """Texts from a model, one below the other, instead of ``text``."""

    @property
    def counted(self) -> Sequence[tuple[Sequence[Piece], int]]:
        """The distinct texts in their order, each with how often it occurs."""
        found: dict[tuple[Piece, ...], int] = {}
        for one in self.texts:
            found[tuple(one)] = found.get(tuple(one), 0) + 1
        return list(found.items())


@dataclass(frozen=True)
class Table:
    """Rows of cells; ``untrusted`` where the target wrote part of it."""

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    untrusted: bool = False
    control: bool = False


@dataclass(frozen=True)
class Note:
    """A line that says how it came out."""

    kind: ClassVar[str] = "note"
    title: str
    text: str
    tone: str = ""
    control: bool = False
    note: str = ""


@dataclass(frozen=True)
class Token:
    """A token with its shade, from -6 to 6."""

    text: str
    level: int
    title: str
    strong: bool = False


@dataclass(frozen=True)
class Heat:
    """Tokens coloured by a value."""

    kind: ClassVar[str] = "heat"
    title: str
    tokens: Sequence[Token]
    note: str = ""
    control: bool = False


@dataclass(frozen=True)
class Grid:
    """Layers by positions, coloured."""

    kind: ClassVar[str] = "grid"
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Token]]]
    note: str = ""
    control: bool = False


@dataclass(frozen=True)
class Series:
    """A line of a chart: points of x, y, low and high (the last two may be None)."""

    name: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    tone: str = "main"
    """``main`` for the effect, ``second`` or ``control``."""


@dataclass(frozen=True)
class Chart:
    """Lines over doses or layers."""

    kind: ClassVar[str] = "chart"
    title: str
    x: str
    y: str
    series: Sequence[Series]
    note: str = ""
    control: bool = False
    band: tuple[float, float, str] | None = None
    """A region that chance alone produces: low, high and its name."""
    levels: Sequence[tuple[float, str]] = ()
    """Horizontal lines."""


@dataclass(frozen=True)
class Card:
    """A feature of a sparse autoencoder, or a passage of a transcript."""

    title: str
    facts: Sequence[tuple[str, str]] = ()
    lines: Sequence[tuple[str, Sequence[Piece]]] = ()
    tone: str = ""


@dataclass(frozen=True)
class Cards:
    """Several cards."""

    kind: ClassVar[str] = "cards"
    title: str
    cards: Sequence[Card]
    note: str = ""
    control: bool = False
    untrusted: bool = field(default=False)


Block = Table | Note | Heat | Grid | Chart | Cards


def level(value: Any, largest: float) -> int:
    """The shade of a value where ``largest`` is the darkest."""
    real = number(value)
    if real is None or largest <= 0:
        return 0
    return max(-STEPS, min(STEPS, round(STEPS * real / largest)))


def share(value: Any, digits: int = 2, sign: bool = False) -> Cell:
    """A number in a cell."""
    real = number(value)
    return Cell("–" if real is None else f"{real:{'+' if sign else ''}.{digits}f}", "num")


def bar(value: Any, largest: float = 1.0, digits: int = 2) -> Cell:
    """A number with a bar."""
    real = number(value)
    if real is None:
        return Cell("–", "num")
    return Cell(f"{real:.{digits}f}", "num", bar=min(1.0, abs(real) / largest) if largest > 0 else 0.0)


def differing(texts: Sequence[Any], others: Sequence[Any], *, extra: Collection[str] = ()) -> list[list[Piece]]:
    """Each text in pieces: those words stand out that none of the ``others`` has, and those of ``extra``."""
    known = {word.casefold() for other in others for word in _WORD.findall(text(other))}
    wanted = {word.casefold() for word in extra}
    return [_pieces(text(one), known, wanted) for one in texts]


def _pieces(said: str, known: Collection[str], wanted: Collection[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for part in _WORD.findall(said):
        word = part.casefold()
        stands_out = part[0].isalnum() and (word in wanted or (bool(known) and word not in known))
        if pieces and pieces[-1][1] == stands_out:
            pieces[-1] = (pieces[-1][0] + part, stands_out)
        else:
            pieces.append((part, stands_out))
    return pieces
