"""Experiments by hand: the tools of a case on its target, from a script or a notebook, without an investigator.

::

    from marple.agent.experimenting import open_experiments

    with open_experiments("hidden-goal/nano-09") as experiments:
        result = experiments.call("chat", {"messages": ["which radio should i buy?"]}, seed=1)
        print(result.text)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from marple.errors import UnknownNameError

if TYPE_CHECKING:
    from marple.agent.workbench import Workbench
    from marple.tools.contract import ToolResult

__all__ = ["Experiments", "open_experiments", "show"]

_T = TypeVar("_T")


class Experiments:
    """A worker with a target, called one tool at a time from ordinary code; close it, or use it with ``with``."""

    def __init__(self, bench: Coroutine[Any, Any, Workbench]) -> None:
        """Start the worker; not for callers, who use `open_experiments`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="marple-experiments", daemon=True)
        self._thread.start()
        try:
            self._bench = self._wait(bench)
        except BaseException:
            self._stop()
            raise

    @property
    def tools(self) -> list[str]:
        """Names of the tools that can be called here."""
        return sorted({**self._bench.tools, **self._bench.code_tools})

    def call(self, tool: str, arguments: Mapping[str, Any], *, seed: int = 0) -> ToolResult:
        """Run one tool; the same call with the same seed gives the same result.

        Raises:
            UnknownNameError: there is no such tool here.
            ToolError: the tool refused its arguments.
            SandboxError: the worker failed or ended; the next call gets a fresh one.
        """
        if tool in self._bench.code_tools:
            return self._wait(self._bench.call_code(tool, arguments, owner="experiments", seed=seed))
        if tool not in self._bench.tools:
            raise UnknownNameError("tool", tool, self.tools)
        return self._wait(self._bench.call(tool, arguments, seed=seed))

    def close(self) -> None:
        """End the worker; a second time does nothing."""
        if self._thread.is_alive():
            self._wait(self._bench.close())
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def open_experiments(
    case: str | None = None,
    *,
    target: str | None = None,
    reference: str | None = None,
    saes: tuple[str, ...] = (),
    corpus: str | None = None,
    sandbox: str = "auto",
) -> Experiments:
    """Start a worker on the target of a case, or on a model of your own.

    Args:
        case: a case's id, or a case file.
        target: instead of a case: a model's directory or hub id.
        reference: what the target is compared with.
        saes: directories with a sparse autoencoder of the target each.
        corpus: a JSONL file of transcripts.
        sandbox: name of an isolation backend, or ``auto``.

    Raises:
        UsageError: neither or both of ``case`` and ``target`` are given, or one of them is unknown.
        OrganismError: an organism could not be built.
        SandboxError: the worker does not start.
    """
    from marple.agent.configuration import RunConfig
    from marple.agent.run import open_bench
    from marple.tasks.materials import prepare

    config = RunConfig.of(
        case=case,
        target=target,
        reference=reference,
        investigator="experiments",
        saes=tuple(map(Path, saes)),
        corpus=None if corpus is None else Path(corpus),
        sandbox=sandbox,
    )
    materials = prepare(config.case).beside(config.saes, config.corpus, config.plugins)
    return Experiments(open_bench(materials, backend=sandbox))


def show(result: ToolResult) -> None:
    """Print a result, made harmless to a terminal; in a notebook show its plots too."""
    from marple.tools.visible import visible

    print(visible(result.text, lines=True))
    try:
        from IPython import get_ipython  # type: ignore[import-not-found, unused-ignore]
        from IPython.display import Image, display  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return
    if get_ipython() is not None:
        for artifact in result.artifacts:
            if artifact.media_type.startswith("image/"):
                display(Image(data=artifact.data))
