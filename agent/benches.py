"""Where a run gets what it plays on: by itself, or from a store that it shares with other runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from marple.agent.bench import Bench
from marple.agent.endpoint_bench import EndpointBench
from marple.agent.workbench import Workbench
from marple.errors import MarpleError, SandboxError, StagingError
from marple.sandboxes import Limits, stage
from marple.sandboxes.plugins import Plugin
from marple.tasks.case import Case
from marple.tasks.materials import Materials, control_of, prepare

if TYPE_CHECKING:
    from marple.tasks.organisms import Progress

__all__ = ["Benches", "OwnBenches", "Role", "open_bench"]

Role = Literal["target", "control", "trial"]
"""What a workbench is for: the experiments, the same on a model that must not show them, or trying what an answer
hands in, where nobody has experimented."""

SMALL_TARGET = 64 * 2**20
"""Bytes of weights below which one thread is faster than several, and repeats to the bit."""


class Benches(Protocol):
    """Finds the materials of cases and opens workbenches on them."""

    async def prepare(self, case: Case, *, progress: Progress | None = None) -> Materials:
        """See `marple.tasks.materials.prepare`."""
        ...

    async def control_of(
        self, case: Case, materials: Materials, *, progress: Progress | None = None
    ) -> Materials | None:
        """See `marple.tasks.materials.control_of`."""
        ...

    async def open(self, materials: Materials, role: Role, *, backend: str = "auto") -> Workbench:
        """A workbench, which the caller closes; see `open_bench`."""
        ...


class OwnBenches:
    """A worker of its own for every role of one run."""

    async def prepare(self, case: Case, *, progress: Progress | None = None) -> Materials:
        """The case's materials; an organism that is not in the cache is built."""
        return await asyncio.to_thread(prepare, case, progress=progress)

    async def control_of(
        self, case: Case, materials: Materials, *, progress: Progress | None = None
    ) -> Materials | None:
        """The control's materials, or None."""
        return await asyncio.to_thread(control_of, case, materials, progress=progress)

    async def open(self, materials: Materials, role: Role, *, backend: str = "auto") -> Workbench:
        """A fresh one."""
        return await open_bench(materials, backend=backend)


async def open_bench(materials: Materials, *, backend: str = "auto") -> Workbench:
    """Stage a case's target, searched for words of its truth, and start a worker on it.

    Raises:
        LeakError: the staged files contain a word of the truth.
        SandboxError: the target cannot be staged or the worker does not start.
    """
    if materials.endpoints is not None:
        return EndpointBench(materials.endpoints, corpus=materials.corpus)
    assert materials.target is not None
    forbidden = materials.truth.keywords if materials.truth else ()
    staging = asyncio.ensure_future(
        asyncio.to_thread(
            stage,
            materials.target,
            reference=materials.reference,
            adapter=materials.adapter,
            saes=materials.saes,
            corpus=materials.corpus,
            plugins=[plugin.path for plugin in materials.plugins],
            forbidden=forbidden,
        )
    )
    try:
        staged = await asyncio.shield(staging)
    except asyncio.CancelledError:
        # The thread goes on, and nobody else would remove what it makes.
        with contextlib.suppress(MarpleError):
            (await staging).remove()
        raise
    size = sum(file.stat().st_size for file in staged.target.glob("*.safetensors"))
    limits = Limits(threads=1 if size < SMALL_TARGET else None)
    try:
        return await Bench.start(staged, backend=backend, limits=limits)
    except SandboxError as error:
        raise _of_plugin(error, materials.plugins) or error from error


def _of_plugin(error: SandboxError, plugins: Sequence[Plugin]) -> StagingError | None:
    """What a worker said of a tool file that it cannot use, with the name that the user knows it by."""
    said = str(error).partition("UsageError: ")[2].removesuffix(" (internal)")
    for number, plugin in enumerate(plugins):
        named = [f"tool_{number}.py", *(f"tool {tool.name!r}" for tool in plugin.tools)]
        if any(name in said for name in named):
            reason = said.replace(f"tool plugin 'tool_{number}.py' ", "it ")
            return StagingError(f"the tool plugin {str(plugin.path)!r} cannot be used: {reason}")
    return None
