"""Where experiments run: staging a target, starting a worker on it, talking to that worker."""

from marple.sandboxes.backend import BackendStatus, Limits, backends
from marple.sandboxes.client import SelfTestOutcome, ToolInfo, Worker, WorkerEnd, start_worker
from marple.sandboxes.staging import StagedTarget, stage

__all__ = [
    "BackendStatus",
    "Limits",
    "SelfTestOutcome",
    "StagedTarget",
    "ToolInfo",
    "Worker",
    "WorkerEnd",
    "backends",
    "stage",
    "start_worker",
]
