"""The code worker of a backend, on a tiny model, as the agent's programs meet it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from marple.sandboxes import Limits, stage, start_worker
from marple.sandboxes.backend import CODE_WORKER, Backend
from tests.attacks.sandboxed import Arena, HostLoop
from tests.attacks.world import World

_SECONDS = 60.0


class CodeArena(Arena):
    """A backend with a code worker in it."""

    def __init__(self, backend: Backend, world: World, loop: HostLoop) -> None:
        from marple.tools.target.tiny import make_tiny_checkpoint

        super().__init__(backend, world, loop)
        with tempfile.TemporaryDirectory() as folder:
            make_tiny_checkpoint(Path(folder) / "tiny", seed=1)
            self._staged = stage(Path(folder) / "tiny").__enter__()
        limits = Limits(threads=1, device="cpu")
        starting = start_worker(self._staged, backend=backend, limits=limits, program=CODE_WORKER)
        self.worker = loop.run(starting, 120)

    def run(self, code: str) -> Any:
        """The result of a program."""
        return self.loop.run(self.worker.call("python", {"code": code, "timeout_seconds": 20}, seed=1), _SECONDS)

    def digest(self) -> Any:
        """The weights that the worker holds."""
        return self.loop.run(self.worker.digest(), _SECONDS)

    def close(self) -> None:
        """End the worker."""
        self.loop.run(self.worker.close(), _SECONDS)
        self._staged.__exit__(None, None, None)
        super().close()


def ran(arena: Arena, code: str, *, here: bool = False, whole: bool = False) -> Any:
    """What a program prints; with ``whole`` everything the host is told of it.

    Args:
        arena: with a code worker, or without any separation.
        code: the program.
        here: without separation, in the very process that speaks to the host.
        whole: the result instead of what was printed.
    """
    if isinstance(arena, CodeArena):
        result = arena.run(code)
        return result if whole else "\n".join(result.data["printed"])
    return arena.ask("code.run", code=code, here=here)
