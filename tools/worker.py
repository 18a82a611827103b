"""The worker: a process of its own that holds the target and runs the tools.

Started as ``python -I -B -m marple.tools.worker ROOT`` with an empty environment. It reads requests from descriptor 0
and answers on descriptor 1, both of which it moves out of the way before any other code runs, so that nothing a
library prints can end up in a reply. Requests are read by a thread of their own and done in order; the end of the
channel ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import platform
import queue
import re
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from marple.errors import TargetRefusedError, ToolError, WireError
from marple.tools import messages, wire

if TYPE_CHECKING:
    from marple.tools.contract import ToolSpec
    from marple.tools.target.target import Target

__all__ = ["main"]

_FIRST_CHANNEL_DESCRIPTOR = 64
_PR_SET_PDEATHSIG = 1
_EXIT_PROTOCOL = 70


def main(root: str) -> None:
    """Serve requests until the host says ``shutdown`` or goes away.

    Args:
        root: the staged directory; every path in the configuration is relative to it.
    """
    requests, replies = _take_channel()
    _die_with_parent()
    waiting: queue.SimpleQueue[messages.Request] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, waiting), daemon=True, name="requests").start()
    session = _Session(Path(root))
    while True:
        request = waiting.get()
        try:
            replies.write(session.answer(request))
            replies.flush()
        except OSError:
            _leave(0)
        if isinstance(request, messages.Shutdown):
            _leave(0)


# ---------------------------------------------------------------------------------------------- channel


def _take_channel() -> tuple[BinaryIO, BinaryIO]:
    requests = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _FIRST_CHANNEL_DESCRIPTOR)
    replies = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _FIRST_CHANNEL_DESCRIPTOR)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def _die_with_parent() -> None:
    # The end of the channel ends the worker too, but a library that never gives up the interpreter lock
    # would keep the reading thread from seeing it.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _read(requests: BinaryIO, waiting: queue.SimpleQueue[messages.Request]) -> None:
    try:
        while (value := wire.read_frame(requests)) is not None:
            waiting.put(messages.parse_request(value))
    except WireError:
        traceback.print_exc()
        _leave(_EXIT_PROTOCOL)
    _leave(0)


def _leave(status: int) -> NoReturn:
    # No interpreter shutdown: other threads may be inside native code.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


# ---------------------------------------------------------------------------------------------- session


class _Session:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._loaded: _Loaded | None = None

    def answer(self, request: messages.Request) -> bytes:
        """The whole frame that answers a request; never raises for what a tool or a model does."""
        try:
            body = wire.encode_body({"id": request.id, "ok": self._do(request)})
            if len(body) > wire.MAX_FRAME_BYTES:
                raise _TooLarge(f"the result takes {len(body)} bytes; the limit is {wire.MAX_FRAME_BYTES}")
            return wire.frame(body)
        except Exception as error:
            code, message = _describe(error)
            return wire.encode_frame({"id": request.id, "error": {"code": code, "message": message}})

    def _do(self, request: messages.Request) -> Mapping[str, Any]:
        if isinstance(request, messages.Shutdown):
            return {}
        if isinstance(request, messages.Hello):
            if self._loaded is not None:
                raise _BadRequest("hello was already said")
            self._loaded = _load(self._root, request.config)
            return self._loaded.describe()
        if self._loaded is None:
            raise _BadRequest("hello must come first")
        if isinstance(request, messages.SelfTest):
            return {"outcomes": [_self_test(spec) for spec in self._loaded.tools.values()]}
        return self._loaded.call(request)


@dataclass(frozen=True)
class _Loaded:
    target: Target
    tools: Mapping[str, ToolSpec]

    def describe(self) -> dict[str, Any]:
        """The reply to ``hello``."""
        return {
            "protocol": messages.PROTOCOL,
            "tools": [_info(spec) for spec in self.tools.values()],
            "target": dict(self.target.facts),
            "reference": self.target.reference is not None,
            "stamp": _stamp(),
        }

    def call(self, request: messages.Call) -> dict[str, Any]:
        """Run one tool."""
        spec = self.tools.get(request.tool)
        if spec is None:
            raise _UnknownTool(f"there is no tool {request.tool[:100]!r}; there are {', '.join(self.tools)}")
        return messages.result_to_json(spec.run(self.target, request.arguments, seed=request.seed))


def _load(root: Path, config: messages.WorkerConfig) -> _Loaded:
    _prepare_environment(root, config.threads)
    # Importing torch and transformers allocates millions of long-lived objects; collecting in between
    # takes a fifth of the start.
    gc.disable()
    try:
        import torch

        if config.threads is not None:
            torch.set_num_threads(config.threads)
        from marple.tools.contract import discover_tools
        from marple.tools.target.loading import load_target

        target = load_target(
            root / config.target,
            reference=None if config.reference is None else root / config.reference,
            device=_device(config.device),
            dtype=config.dtype,
        )
        tools = discover_tools([root / plugin for plugin in config.plugins])
    finally:
        gc.enable()
        gc.freeze()
    offered = {
        name: spec for name, spec in tools.items() if "reference" not in spec.needs or target.reference is not None
    }
    return _Loaded(target, offered)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _prepare_environment(root: Path, threads: int | None) -> None:
    # The process starts without any variable; these keep libraries from the network and from the home directory.
    nowhere = str(root / "none")
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TRANSFORMERS_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
        TOKENIZERS_PARALLELISM="false",
        HF_HOME=nowhere,
        TORCH_HOME=nowhere,
    )
    if threads is not None:
        os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))


def _info(spec: ToolSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "rung": spec.rung,
        "parallel": spec.parallel,
        "needs": list(spec.needs),
        "parameters": dict(spec.parameters),
    }


def _stamp() -> dict[str, Any]:
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _self_test(spec: ToolSpec) -> dict[str, Any]:
    if spec.self_test is None:
        return {"name": spec.name, "ok": False, "message": "has no self-test"}
    try:
        spec.self_test()
    except Exception as error:
        return {"name": spec.name, "ok": False, "message": _describe(error)[1]}
    return {"name": spec.name, "ok": True, "message": ""}


# ---------------------------------------------------------------------------------------------- errors


class _BadRequest(Exception):
    pass


class _UnknownTool(Exception):
    pass


class _TooLarge(Exception):
    pass


_CODES: tuple[tuple[type[Exception], messages.ErrorCode], ...] = (
    (ToolError, "tool_error"),
    (_UnknownTool, "unknown_tool"),
    (_BadRequest, "bad_request"),
    (_TooLarge, "result_too_large"),
    (TargetRefusedError, "target_refused"),
)
_PATH = re.compile(r"""(?<![^\s'"(=])/[^\s'":,)]+""")


def _describe(error: Exception) -> tuple[messages.ErrorCode, str]:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code, _fit(str(error))
    traceback.print_exception(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory", "the worker ran out of memory; ask for less at once"
    return "internal", _fit(_PATH.sub("<path>", f"{type(error).__name__}: {error}"), 500)


def _fit(message: str, limit: int = 4000) -> str:
    # A lone surrogate in a message must not keep the error from being sent.
    clean = message.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


if __name__ == "__main__":
    main(sys.argv[1])
