"""The host's side of one worker process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from marple.errors import (
    SandboxError,
    TargetRefusedError,
    ToolError,
    WireError,
    WorkerDiedError,
    WorkerTimeoutError,
)
from marple.sandboxes.backend import Backend, Launched, Limits, choose_backend
from marple.sandboxes.staging import StagedTarget
from marple.tools import messages, wire
from marple.tools.contract import ToolResult
from marple.tools.messages import SelfTestOutcome, ToolInfo

__all__ = ["SelfTestOutcome", "ToolInfo", "Worker", "WorkerEnd", "start_worker"]

_DIAGNOSTICS_BYTES = 64 * 1024
_CHUNK = 64 * 1024
_MAX_OUTSTANDING = 64
_GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class WorkerEnd:
    """Why a worker is no longer there."""

    kind: Literal["died", "timeout", "protocol", "closed"]
    message: str
    status: int | None = None
    """Exit status, minus the number of a signal; None where it was not the worker's own doing."""
    diagnostics: str = ""
    """The last 64 KiB of what the worker printed; may hold host paths and text of any kind."""

    def error(self) -> SandboxError:
        """A fresh exception for a call that cannot be answered any more."""
        kinds: dict[str, type[SandboxError]] = {"timeout": WorkerTimeoutError, "protocol": WireError}
        error = kinds.get(self.kind, WorkerDiedError)(self.message)
        if self.diagnostics:
            error.add_note(f"the worker's last output:\n{self.diagnostics[-4000:]}")
        return error


@dataclass
class _Outstanding:
    what: str
    seconds: float
    parse: Callable[[Any], Any]
    answer: asyncio.Future[Any]


class Worker:
    """A running worker: its tools, and calls to them.

    Made by ``start_worker``. Calls may be made at the same time. Whatever goes wrong with the process or with what
    it sends ends the worker, fails every outstanding call with a typed error, and is kept in ``ended``.
    """

    def __init__(self, launched: Launched, limits: Limits) -> None:
        self.tools: Mapping[str, ToolInfo] = {}
        """The tools it offers, by name."""
        self.facts: Mapping[str, Any] = {}
        """The target's parameters, layers, d_model, vocab, dtype, device and weights_sha256."""
        self.stamp: Mapping[str, Any] = launched.stamp
        """The isolation it really has, and the versions it runs, for the trace."""
        self.has_reference = False
        self.ended: WorkerEnd | None = None
        self._launched = launched
        self._limits = limits
        self._outstanding: dict[str, _Outstanding] = {}
        self._slots = asyncio.Semaphore(_MAX_OUTSTANDING)
        self._clock: asyncio.TimerHandle | None = None
        self._printed = bytearray()
        self._draining = asyncio.create_task(self._drain())
        self._supervising = asyncio.create_task(self._supervise())

    @property
    def pid(self) -> int | None:
        """Process id on this machine, where there is one."""
        return self._launched.pid

    async def call(
        self, tool: str, arguments: Mapping[str, Any], *, seed: int, timeout: float | None = None
    ) -> ToolResult:
        """Run one tool on the target.

        Args:
            tool: its name.
            arguments: what the tool's schema asks for.
            seed: given to the tool; the same call with the same seed gives the same result.
            timeout: seconds, counted from when the worker can begin with it; None for the limit of the worker.

        Raises:
            ToolError: the tool refused the arguments; fit for the investigator to read.
            SandboxError: the tool failed, ran out of memory or made too large a result; the worker goes on.
            WorkerTimeoutError: no answer in time; the worker was killed.
            WorkerDiedError: the process ended.
            WireError: the worker broke the protocol and was killed.
        """
        seconds = self._limits.call_seconds if timeout is None else timeout
        fields = {"op": "call", "tool": tool, "arguments": dict(arguments), "seed": seed}
        result: ToolResult = await self._request(fields, messages.result_from_json, seconds=seconds, what=tool)
        return result

    async def self_test(self) -> list[SelfTestOutcome]:
        """Run every tool's known-answer test in the worker.

        Raises:
            SandboxError: as for ``call``.
        """
        seconds = self._limits.call_seconds
        reply = await self._request({"op": "self_test"}, _self_test_reply, seconds=seconds, what="self-test")
        outcomes: list[SelfTestOutcome] = reply.outcomes
        return outcomes

    async def close(self) -> None:
        """End the worker and everything it started, and wait until it is gone; harmless when repeated."""
        self._end(WorkerEnd("closed", "the worker was closed"))
        await asyncio.wait({self._draining, self._supervising})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._launched.wait(), timeout=10 * _GRACE_SECONDS)

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------ asking

    async def _hello(self, config: messages.WorkerConfig) -> None:
        fields = {"op": "hello", "config": config.model_dump()}
        reply = await self._request(
            fields, _hello_reply, seconds=self._limits.start_seconds, what="the start of the worker"
        )
        self.tools = {tool.name: tool for tool in reply.tools}
        self.facts = reply.target
        self.has_reference = reply.reference
        self.stamp = {**self._launched.stamp, "worker": reply.stamp}

    async def _request(
        self, fields: Mapping[str, Any], parse: Callable[[Any], Any], *, seconds: float, what: str
    ) -> Any:
        request = secrets.token_hex(16)
        try:
            frame = wire.encode_frame({"id": request, **fields})
        except WireError as error:
            raise ToolError(f"{what}: these arguments {error}") from error
        async with self._slots:
            if self.ended is not None:
                raise self.ended.error()
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            # A call cancelled in the same turn of the loop never asks for its error; that is no reason to warn.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            # A cancelled call stays listed, so that its late answer is expected and dropped.
            self._outstanding[request] = _Outstanding(what, seconds, parse, answer)
            if len(self._outstanding) == 1:
                self._wind_clock()
            self._launched.send(frame)
            return await answer

    def _wind_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        first = next(iter(self._outstanding.values()), None)
        if first is not None:
            self._clock = asyncio.get_running_loop().call_later(first.seconds, self._time_out, first)

    def _time_out(self, late: _Outstanding) -> None:
        message = f"{late.what} gave no answer in {late.seconds:g} s; the worker was killed"
        self._end(WorkerEnd("timeout", message, diagnostics=self._tail()))

    # ------------------------------------------------------------------------------------ hearing

    async def _supervise(self) -> None:
        reading = asyncio.create_task(self._read())
        exit_ = asyncio.create_task(self._launched.wait())
        try:
            await asyncio.wait({reading, exit_}, return_when=asyncio.FIRST_COMPLETED)
            # Normally both come together: what was sent before the end is still read, and the status is known.
            if not (reading.done() and reading.exception()):
                await asyncio.wait({reading, exit_}, timeout=_GRACE_SECONDS)
            if exit_.done():
                await asyncio.wait({self._draining}, timeout=_GRACE_SECONDS / 5)
            self._end(self._diagnose(reading, exit_))
        finally:
            reading.cancel()
            exit_.cancel()
            await asyncio.wait({reading, exit_})

    def _diagnose(self, reading: asyncio.Task[None], exit_: asyncio.Task[int]) -> WorkerEnd:
        error = reading.exception() if reading.done() else None
        if isinstance(error, WireError):
            return WorkerEnd("protocol", f"the worker broke the protocol: {error}", diagnostics=self._tail())
        if error is not None:
            return WorkerEnd("protocol", f"the worker's reply could not be read: {error!r}")
        if not exit_.done():
            return WorkerEnd("died", "the worker closed its channel", diagnostics=self._tail())
        status = exit_.result()
        return WorkerEnd("died", f"the worker process {_manner(status)}", status, self._tail())

    async def _read(self) -> None:
        parser = wire.FrameParser()
        while data := await self._launched.replies.read(_CHUNK):
            for value in parser.feed(data):
                self._hear(messages.validate(messages.Reply, value))

    def _hear(self, reply: messages.Reply) -> None:
        outstanding = self._outstanding.get(reply.id)
        if outstanding is None:
            raise WireError("an answer to nothing that was asked")
        if (reply.ok is None) == (reply.error is None):
            raise WireError("a reply holds exactly one of ok and error")
        first = next(iter(self._outstanding)) == reply.id
        value = None if reply.error is not None else outstanding.parse(reply.ok)
        del self._outstanding[reply.id]
        if first:
            self._wind_clock()
        if outstanding.answer.done():
            return
        if reply.error is None:
            outstanding.answer.set_result(value)
        else:
            outstanding.answer.set_exception(_refusal(outstanding.what, reply.error))

    async def _drain(self) -> None:
        while data := await self._launched.diagnostics.read(_CHUNK):
            self._printed += data
            del self._printed[:-_DIAGNOSTICS_BYTES]

    def _tail(self) -> str:
        return self._printed.decode("utf-8", "replace")

    # ------------------------------------------------------------------------------------ ending

    def _end(self, end: WorkerEnd) -> None:
        if self.ended is not None:
            return
        self.ended = end
        if self._clock is not None:
            self._clock.cancel()
        # Before anything that could fail: nobody may be left waiting.
        for outstanding in self._outstanding.values():
            if not outstanding.answer.done():
                outstanding.answer.set_exception(end.error())
        self._outstanding.clear()
        self._launched.kill()
        self._launched.close()


async def start_worker(
    staged: StagedTarget, *, backend: str | Backend = "auto", limits: Limits | None = None
) -> Worker:
    """Start a worker on a staged target and wait until it is ready.

    Args:
        staged: what ``stage`` returned; the worker sees nothing else of the host's on purpose.
        backend: a backend's name, ``auto`` for the strongest that works here, or a backend.
        limits: times, memory, device; None for the defaults.

    Raises:
        UnknownNameError: there is no such backend.
        TargetRefusedError: the worker will not load this target.
        SandboxError: the worker could not be started, or failed, died or took too long while loading.
    """
    limits = limits or Limits()
    chosen = choose_backend(backend) if isinstance(backend, str) else backend
    worker = Worker(await chosen.launch(staged.root, limits), limits)
    config = messages.WorkerConfig(
        target=_inside(staged.root, staged.target),
        reference=None if staged.reference is None else _inside(staged.root, staged.reference),
        plugins=[_inside(staged.root, plugin) for plugin in staged.plugins],
        device=limits.device,
        dtype=limits.dtype,
        threads=limits.threads,
    )
    try:
        await worker._hello(config)
    except BaseException:
        await worker.close()
        raise
    return worker


def _inside(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _hello_reply(value: Any) -> messages.HelloReply:
    return messages.validate(messages.HelloReply, value)


def _self_test_reply(value: Any) -> messages.SelfTestReply:
    return messages.validate(messages.SelfTestReply, value)


def _refusal(what: str, error: messages.ErrorBody) -> Exception:
    if error.code in ("tool_error", "unknown_tool"):
        return ToolError(error.message)
    if error.code == "target_refused":
        return TargetRefusedError(error.message)
    return SandboxError(f"{what}: {error.message} ({error.code})")


def _manner(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
