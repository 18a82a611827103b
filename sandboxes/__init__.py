"""Where experiments run: staging a target, starting a worker on it, talking to that worker."""

from marple.sandboxes.backend import BackendStatus, Limits
from marple.sandboxes.choosing import backends, choose_backend
from marple.sandboxes.client import SelfTestOutcome, ToolInfo, Worker
from marple.sandboxes.endings import WorkerEnd
from marple.sandboxes.outstanding import OnProgress
from marple.sandboxes.staging import StagedTarget, stage
from marple.sandboxes.starting import start_worker

__all__ = [
    "BackendStatus",
    "Limits",
    "OnProgress",
    "SelfTestOutcome",
    "StagedTarget",
    "ToolInfo",
    "Worker",
    "WorkerEnd",
    "backends",
    "choose_backend",
    "stage",
    "start_worker",
]
