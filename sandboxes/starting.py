"""Start a worker on a staged target."""

from __future__ import annotations

from pathlib import Path

from marple.sandboxes.backend import TOOL_WORKER, Backend, Limits, Program
from marple.sandboxes.choosing import choose_backend
from marple.sandboxes.client import Worker
from marple.sandboxes.staging import StagedTarget
from marple.tools.messages import WorkerConfig

__all__ = ["start_worker"]


async def start_worker(
    staged: StagedTarget,
    *,
    backend: str | Backend = "auto",
    limits: Limits | None = None,
    program: Program = TOOL_WORKER,
) -> Worker:
    """Start a worker on a staged target and wait until it is ready.

    Args:
        staged: what ``stage`` returned; the worker sees nothing else of the host's on purpose.
        backend: a backend's name, ``auto`` for the strongest that works here, or a backend.
        limits: times, memory, device; None for the defaults.
        program: which worker: the one with the tools, or the one for code written by an agent.

    Raises:
        UnknownNameError: there is no such backend.
        TargetRefusedError: the worker will not load this target.
        SandboxUnavailableError: the backend does not work on this machine.
        SandboxError: the worker could not be started, or failed, died or took too long while loading.
    """
    limits = limits or Limits()
    chosen = choose_backend(backend).backend if isinstance(backend, str) else backend
    worker = Worker(await chosen.launch(staged.root, limits, program), limits)
    config = WorkerConfig(
        target=_inside(staged.root, staged.target),
        reference=None if staged.reference is None else _inside(staged.root, staged.reference),
        adapter=None if staged.adapter is None else _inside(staged.root, staged.adapter),
        saes=[_inside(staged.root, sae) for sae in staged.saes],
        corpus=None if staged.corpus is None else _inside(staged.root, staged.corpus),
        plugins=[_inside(staged.root, plugin) for plugin in staged.plugins],
        device=limits.device,
        dtype=limits.dtype,
        threads=limits.threads,
    )
    try:
        await worker.hello(config)
    except BaseException:
        await worker.close()
        raise
    return worker


def _inside(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
