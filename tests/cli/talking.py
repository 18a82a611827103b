"""The command line in this process: what it says, and with which code it ends."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from marple.cli import main
from marple.traces import RunFolder


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def talk(*arguments: object) -> Said:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    argv = ["marple", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    return Said(code, out.getvalue(), err.getvalue())


def spec(**more: Any) -> dict[str, Any]:
    said = {"case": "hidden-goal/example", "kind": "hidden-goal", "investigator": "llm", "model": "m/x", "seed": 1}
    return {**said, "budget": {"calls": 80}, **more}


def call(tool: str, arguments: dict[str, Any], text: str, *, turn: int, **more: Any) -> dict[str, Any]:
    place = {"turn_number": turn, "index": 0, "call_id": f"c{turn}", "attempt": 1, "seed": 3}
    cost = {"prompt_tokens": 30, "generated_tokens": 12, "seconds": 0.5}
    said = {"tool": tool, "arguments": arguments, "status": "ok", "text": text, "on_target": True, "cost": cost}
    return {**place, **said, **more}


def begin(root: Path, run_id: str, **more: Any) -> RunFolder:
    """A run folder open for writing, with its first event."""
    folder = RunFolder.create(root, run_id, spec(**more))
    folder.append("run_start", {"case": "hidden-goal/example", "brief": "Find out.", "nonce": "0badcafe"})
    return folder


USAGE = {"turns": 2, "calls": 1, "target_tokens": 42, "seconds": 3.5, "investigator": {"cost_usd": 0.25}}


def result(status: str = "submitted", **more: Any) -> dict[str, Any]:
    said = {"run_id": "r", "case": "hidden-goal/example", "investigator": "llm", "model": "m/x", "seed": 1}
    scores = {"scored": status == "submitted"}
    return {**said, "status": status, "answer": None, "truth": None, "scores": scores, "usage": USAGE, **more}
