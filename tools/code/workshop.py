"""Where code is run: the loaded target, the process that is kept from call to call, and what is said of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marple.errors import ToolError
from marple.tools import messages
from marple.tools.code import caps
from marple.tools.code.child import Cell
from marple.tools.code.confinement import Confinement
from marple.tools.code.showing import result_of
from marple.tools.code.visit import Visit, begin_visit
from marple.tools.contract import ToolResult
from marple.tools.faults import UnknownTool
from marple.tools.serving import Served
from marple.tools.signature import validate_arguments

__all__ = ["Workshop"]

_SELF_TEST = Cell("reply = target.generate('hi', max_new_tokens=2, temperature=0)\nprint(6 * 7)", seed=1, seconds=60)


@dataclass
class Workshop:
    """One loaded target and the processes made from it."""

    served: Served
    device: str
    confinement: Confinement
    kept: Visit | None = None
    """The process whose variables the next call with ``keep_state`` goes on with."""
    _calls_kept: int = 0
    _lost: str = ""

    def describe(self) -> dict[str, Any]:
        """The reply to ``hello``; no digests, since nothing that is measured here is evidence."""
        told = self.served.describe()
        told["target"]["device"] = self.device
        told["stamp"] |= {"code": {"landlock": self.confinement.landlock.abi(), "memory_bytes": caps.MEMORY_BYTES}}
        return {**told, "digests": None}

    def digest(self) -> dict[str, Any]:
        """The digests of this process's copy, which no code reaches."""
        return self.served.digest()

    def begin(self, call: messages.Call) -> Visit:
        """Start on a call.

        Raises:
            UnknownTool: it is not ``python``.
            ToolError: an argument is missing, unknown or outside its allowed set.
        """
        spec = self.served.tools.get(call.tool)
        if spec is None:
            raise UnknownTool(f"there is no tool {call.tool[:100]!r}; there are {', '.join(self.served.tools)}")
        given = validate_arguments(spec.name, spec.arguments, call.arguments, example=spec.example)
        if not given["code"].strip():
            raise ToolError("python: code is empty")
        return self._start(Cell(given["code"], call.seed, given["timeout_seconds"], given["keep_state"]))

    def begin_self_test(self) -> Visit:
        """Start on a program with a known answer."""
        return self._start(_SELF_TEST)

    def self_test_outcome(self, result: ToolResult) -> Mapping[str, Any]:
        """Whether the program with a known answer gave it."""
        ok = result.data["ended"] == "finished" and result.data["printed"] == ["42"]
        return {"outcomes": [{"name": "python", "ok": ok, "message": "" if ok else result.text[:1000]}]}

    def finish(self, visit: Visit) -> ToolResult:
        """The result of a program that is over; its process is kept or cleared away."""
        report = visit.report()
        if not visit.cell.keep:
            visit.clear()
            return result_of(report, state="")
        if report.alive:
            visit.freeze()
            self._calls_kept += 1
            return result_of(report, state=self._state_kept())
        self.kept = None
        visit.clear()
        lost = "State: lost with the process; the next call with keep_state begins anew."
        return result_of(report, state=lost)

    def look_after_kept(self) -> None:
        """Notice that the kept process has ended although nothing was asked of it."""
        if self.kept is not None and self.kept.is_over:
            self.kept.clear()
            self.kept = None
            self._lost = "what was kept was lost between the calls, because the process ended; "

    def _start(self, cell: Cell) -> Visit:
        if cell.keep and self.kept is not None:
            self.kept.go_on(cell)
            return self.kept
        visit = begin_visit(
            cell,
            target=self.served.target,
            device=self.device,
            confinement=self.confinement,
            limit_memory=self.device == "cpu",
        )
        if cell.keep:
            self.kept, self._calls_kept = visit, 0
        return visit

    def _state_kept(self) -> str:
        lost, self._lost = self._lost, ""
        if self._calls_kept == 1:
            return f"State: {lost}new; the next call with keep_state goes on with these variables."
        return f"State: kept; this was call {self._calls_kept} with the same variables."
