"""``save`` as the code of an agent sees it: figures, arrays, tables and text become bytes and leave by a stream."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from marple.tools.code.artifacts import DTYPES, MEDIA_TYPES, Saved, look_at, npy_header
from marple.tools.code.caps import SAVED_BYTES, SAVED_MOST

__all__ = ["Saver"]

_ENDINGS = tuple(MEDIA_TYPES.values())


class Saver:
    """Turns things into bytes and sends them; counts, so that what will be refused is refused here, with a line.

    Args:
        send: sends one frame to the supervisor, which checks everything again.
    """

    def __init__(self, send: Callable[[Mapping[str, Any]], None]) -> None:
        self._send = send
        self._sizes: dict[str, int] = {}
        self._figures: set[int] = set()

    def save(self, name: str, thing: Any) -> None:
        """Keep a thing with the result of the call; a second thing of the same name replaces the first.

        Args:
            name: letters, digits, dots, spaces, underscores and hyphens; the ending is added.
            thing: a figure or axes, an array, a tensor or a number, a list of dicts (a table), a dict or a list (JSON),
                or text.

        Raises:
            TypeError: the thing is of another kind.
            ValueError: its name or its size is not allowed, or there are too many.
        """
        figure = _figure_of(thing)
        media_type, data = ("image/png", _png(figure)) if figure is not None else _to_bytes(thing)
        saved = look_at(_named(name, media_type), media_type, data)
        sizes = {**self._sizes, saved.name: len(saved.data)}
        if len(sizes) > SAVED_MOST:
            raise ValueError(f"{len(sizes)} things are saved; the limit is {SAVED_MOST} for a call")
        if sum(sizes.values()) > SAVED_BYTES:
            raise ValueError(f"{sum(sizes.values()):,} bytes are saved with {name!r}; the limit is {SAVED_BYTES:,}")
        self._send({"saved": _frame_of(saved)})
        self._sizes = sizes
        if figure is not None:
            self._figures.add(id(figure))

    def save_open_figures(self) -> None:
        """Keep the pyplot figures that are open and were not saved, as ``figure-1`` and so on, and close all."""
        import matplotlib.pyplot as plt

        number = 0
        for key in plt.get_fignums():
            figure = plt.figure(key)
            if id(figure) not in self._figures and figure.get_axes():
                number += 1
                self.save(f"figure-{number}", figure)
        plt.close("all")


def _frame_of(saved: Saved) -> dict[str, str]:
    text = base64.b64encode(saved.data).decode("ascii")
    return {"name": saved.name, "media_type": saved.media_type, "base64": text}


def _named(name: str, media_type: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the first argument of save is the name, a str such as 'scores'; got {type(name).__name__}")
    ending = MEDIA_TYPES[media_type]
    if name.endswith(ending):
        return name
    stem = next((name.removesuffix(other) for other in _ENDINGS if name.endswith(other)), name)
    return stem + ending


def _figure_of(thing: Any) -> Any:
    if hasattr(thing, "savefig") and hasattr(thing, "get_axes"):
        return thing
    figure = getattr(thing, "figure", None)
    return figure if hasattr(figure, "savefig") and not isinstance(thing, np.ndarray) else None


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _to_bytes(thing: Any) -> tuple[str, bytes]:
    if isinstance(thing, str):
        return "text/plain", thing.encode("utf-8", "backslashreplace")
    if isinstance(thing, torch.Tensor):
        tensor = thing.detach().cpu()
        thing = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(thing, (np.ndarray, np.generic)):
        return "application/x-npy", _npy(np.asarray(thing))
    if hasattr(thing, "to_csv"):
        return "text/csv", str(thing.to_csv()).encode()
    if isinstance(thing, list) and thing and all(isinstance(row, Mapping) for row in thing):
        return "text/csv", _csv(thing)
    if isinstance(thing, (dict, list, tuple, int, float, bool)):
        return "application/json", json.dumps(thing, default=_plain, ensure_ascii=False, indent=1).encode()
    raise TypeError(
        f"save cannot keep a {type(thing).__name__}; give a figure, an array or tensor of numbers, a list of dicts "
        "(a table), a dict, or text"
    )


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(array.shape)
    descr = little.dtype.str[1:]
    if descr not in DTYPES:
        raise TypeError(
            f"save cannot keep an array of type {array.dtype}; numbers are kept, and rows with text as a list of dicts"
        )
    return npy_header(descr, little.shape) + little.tobytes()


def _csv(rows: list[Mapping[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value)
