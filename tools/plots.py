"""One look for every plot, drawn without a display and returned as PNG.

matplotlib is imported when the first plot is drawn, never by importing a tool.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from marple.tools.contract import Artifact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ACCENT", "CONTROL", "REFERENCE", "TARGET", "figure", "plot_artifact", "png", "visible"]

TARGET = "#2563a8"
"""Colour of what was measured on the target."""
REFERENCE = "#c2701c"
"""Colour of the reference."""
CONTROL = "#9aa0a6"
"""Colour of controls and baselines."""
ACCENT = "#a3264f"
"""Colour of the one thing to look at."""

_DRAWING = threading.RLock()
_STYLE: Any = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "font.size": 9,
    "grid.color": "#e4e6e8",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,
    "svg.hashsalt": "marple",
}


@contextmanager
def figure(width: float = 6.0, height: float = 3.6, *, columns: int = 1) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure in the common style and its axes, side by side.

    Args:
        width: inches.
        height: inches.
        columns: how many axes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # The settings are the process's, and calls run in threads.
    with _DRAWING, matplotlib.rc_context(_STYLE):
        made = Figure(figsize=(width, height), dpi=110, layout="constrained")
        axes = made.subplots(1, columns, squeeze=False)[0]
        yield made, list(axes)


def png(made: Figure) -> bytes:
    """The figure as PNG, with no date and no software name in it, so that equal figures are equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(made)
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def plot_artifact(name: str, made: Figure) -> Artifact:
    """The figure as an artifact called ``name.png``; call it inside ``with figure(...)``."""
    return Artifact(name=f"{name}.png", media_type="image/png", data=png(made))


def visible(text: str, *, limit: int = 16) -> str:
    """Text out of a model, fit for a label: what the font cannot draw is replaced, long text is cut."""
    shown = "".join(one if " " <= one < "\u0250" and one.isprintable() else "\N{MIDDLE DOT}" for one in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
