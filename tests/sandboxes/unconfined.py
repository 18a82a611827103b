"""A backend without any protection: what the probe and the attacks must find open, or they prove nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from marple.sandboxes.backend import TOOL_WORKER, BackendStatus, Limits, Program
from marple.sandboxes.process import WorkerProcess


@dataclass(frozen=True)
class Unconfined:
    name: str = "unconfined"
    preference: int = 0
    contains_code: bool = True

    def probe(self) -> BackendStatus:
        return BackendStatus(self.name, available=True)

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> WorkerProcess:
        assert program.script is not None
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(program.script), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=dict(os.environ),
            start_new_session=True,
        )
        return await WorkerProcess.attach(process, {"backend": self.name})
