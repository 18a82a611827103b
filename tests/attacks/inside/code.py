"""Runs a program as a worker without separation would: beside the process that speaks to the host, or in it."""

from __future__ import annotations

import contextlib
import io

_VARIABLES: dict[str, object] = {"__name__": "__main__"}


def run(code: str) -> str:
    """What a program prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, _VARIABLES)  # noqa: S102
    return printed.getvalue()
