"""What the loop asks of a workbench: a worker with the target's weights, or an endpoint that answers for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from marple.agent.bench import WorkerStart
from marple.sandboxes import OnProgress, ToolInfo
from marple.tasks.outcome import Ending
from marple.tools.contract import ToolResult

__all__ = ["Workbench"]


class Workbench(Protocol):
    """Runs tools on one target; ``Bench`` and ``EndpointBench`` are the two there are."""

    @property
    def tools(self) -> dict[str, ToolInfo]:
        """The trusted tools."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the target."""
        ...

    @property
    def stamp(self) -> dict[str, Any]:
        """What isolation there is."""
        ...

    @property
    def python_reason(self) -> str:
        """Why code of an agent's cannot run here; '' where it can."""
        ...

    @property
    def when_lost(self) -> Ending:
        """How a run ends whose target is lost."""
        ...

    @property
    def starts(self) -> Sequence[WorkerStart]:
        """Every start of a worker, in order."""
        ...

    @property
    def code_tools(self) -> dict[str, ToolInfo]:
        """The tools that run an agent's code."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the target cannot be reached any more."""
        ...

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        seed: int,
        on_progress: OnProgress | None = None,
        fresh: bool = False,
    ) -> ToolResult:
        """Run one tool; see ``Bench.call``."""
        ...

    async def call_code(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        owner: str,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> ToolResult:
        """Run an agent's code; see ``Bench.call_code``."""
        ...

    async def leave(self, owner: str) -> None:
        """Let go of what one run had."""
        ...

    async def changed(self) -> str:
        """Why results cannot be trusted any more; '' where they can."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...
