"""The result of a call of ``python``: a text in which nothing the code printed can pass for anything else, and data."""

from __future__ import annotations

import re
from typing import Any

from marple.tools.code.artifacts import Saved
from marple.tools.code.running import NAME
from marple.tools.code.visit import Report
from marple.tools.contract import Artifact, Cost, ToolResult
from marple.tools.visible import quote

__all__ = ["result_of"]

_SHOWN_HEAD, _SHOWN_TAIL = 7000, 3500
_LINE_ENDS = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Whatever anybody takes for the end of a line."""
_STATUS = re.compile(r"status -?\d+")

_ENDS = {
    "finished": "The code finished after {seconds}.",
    "raised": "The code raised an error after {seconds}.",
    "exited": "The code ended its process after {seconds} ({error}).",
    "crashed": "The code's process crashed after {seconds}: {error}.",
    "killed": "The code's process ended after {seconds}: {error}.",
    "timed_out": "The code was ended after {seconds}, when its time was over, with everything it had started.",
    "flooded": "The code was ended after {seconds}: it put out more than 64 MiB.",
    "cancelled": "The code was ended after {seconds}: the call was cancelled.",
}


def result_of(report: Report, *, state: str) -> ToolResult:
    """What the host is sent.

    Args:
        report: what came of the code.
        state: what is said of the variables that are kept; may be empty.
    """
    printed = report.printed.text()
    if report.ended == "crashed":
        printed = _to_the_program(printed)
    error = report.error if report.ended == "raised" else ""
    said = "" if error else report.error or "no reason known"
    if report.ended == "exited" and not _STATUS.fullmatch(said):
        # The code's own words.
        said = quote(said[:200])
    ending = _ENDS[report.ended].format(seconds=f"{report.seconds:.2f} s", error=said)
    lines = [ending, *([state] if state else []), *report.notes]
    lines += [f"saved {saved.name}: {saved.media_type}, {saved.about}" for saved in report.saved.values()]
    if printed:
        lines += [f"printed ({report.printed.total:,} bytes):", *_block(_middle_cut(printed))]
    if error:
        lines += ["error:", *_block(error)]
    if report.ended == "finished" and not printed and not report.saved:
        lines.append("It printed nothing; the value of the last expression is shown, or use print().")
    return ToolResult(
        text="\n".join(lines),
        data=_data(report, printed, state),
        artifacts=tuple(Artifact(saved.name, saved.media_type, saved.data) for saved in report.saved.values()),
        cost=Cost(prompt_tokens=report.tokens[0], generated_tokens=report.tokens[1], seconds=report.seconds),
    )


def _data(report: Report, printed: str, state: str) -> dict[str, Any]:
    return {
        "ended": report.ended,
        "error": report.error,
        "printed": printed.splitlines(),
        "printed_bytes": report.printed.total,
        "saved": [_facts(saved) for saved in report.saved.values()],
        "notes": [*([state] if state else []), *report.notes],
    }


def _facts(saved: Saved) -> dict[str, Any]:
    return {"name": saved.name, "media_type": saved.media_type, "about": saved.about, "bytes": len(saved.data)}


def _to_the_program(printed: str) -> str:
    """The stack that was printed at a crash, from the crash to the program and no further, with short paths."""
    before, mark, stack = printed.rpartition("(most recent call first):\n")
    lines = stack.splitlines()
    ours = [at for at, line in enumerate(lines) if line.startswith(f'  File "{NAME}')]
    if not mark or not ours:
        return printed
    shown = (re.sub(r'File "/[^"]*/(?:python3[.]\d+|site-packages|site/\d+)/', 'File "', line) for line in lines)
    return before + mark + "\n".join(list(shown)[: ours[-1] + 1]).replace(" in <module>", "") + "\n"


def _middle_cut(text: str) -> str:
    if len(text) <= _SHOWN_HEAD + _SHOWN_TAIL:
        return text
    left_out = len(text) - _SHOWN_HEAD - _SHOWN_TAIL
    return f"{text[:_SHOWN_HEAD]}\n[... {left_out:,} characters: read_result shows them ...]\n{text[-_SHOWN_TAIL:]}"


def _block(text: str) -> list[str]:
    """Lines behind a bar, so that none of them can be taken for one of the harness's."""
    return [f"| {line}" for line in _LINE_ENDS.split(text.rstrip("\n"))]
