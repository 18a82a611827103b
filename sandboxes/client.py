"""The host's side of one worker process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from marple.errors import SandboxError, SandboxUnavailableError, TargetRefusedError, ToolError, WireError
from marple.sandboxes.backend import Launched, Limits
from marple.sandboxes.endings import WorkerEnd, manner
from marple.sandboxes.outstanding import OnProgress, Outstanding
from marple.tools import messages, wire
from marple.tools.contract import ToolResult
from marple.tools.messages import Digests, SelfTestOutcome, ToolInfo

__all__ = ["Digests", "SelfTestOutcome", "ToolInfo", "Worker"]

_DIAGNOSTICS_BYTES = 64 * 1024
_CHUNK = 64 * 1024
_MAX_OUTSTANDING = 64
_GRACE_SECONDS = 1.0


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
        self.digests: Digests | None = None
        """The weights as they were loaded; None from a worker whose results are no evidence."""
        self.ended: WorkerEnd | None = None
        self._launched = launched
        self._limits = limits
        self._outstanding: dict[str, Outstanding] = {}
        self._slots = asyncio.Semaphore(_MAX_OUTSTANDING)
        self._printed = bytearray()
        self._draining = asyncio.create_task(self._drain())
        self._supervising = asyncio.create_task(self._supervise())

    @property
    def pid(self) -> int | None:
        """Process id on this machine, where there is one."""
        return self._launched.pid

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        seed: int,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        fresh: bool = False,
    ) -> ToolResult:
        """Run one tool on the target.

        Cancelling it cancels the call in the worker too; other calls go on.

        Args:
            tool: its name.
            arguments: what the tool's schema asks for.
            seed: given to the tool; the same call with the same seed gives the same result.
            timeout: seconds from when the call is sent; None for the limit of the worker.
            on_progress: told now and then how many are done, of how many, of what.
            fresh: compute again what the worker could serve from its result cache (for replication).

        Raises:
            ToolError: the tool refused the arguments; fit for the investigator to read.
            SandboxError: the tool failed, ran out of memory or made too large a result; the worker goes on.
            WorkerTimeoutError: no answer in time; the worker was killed.
            WorkerDiedError: the process ended.
            WireError: the worker broke the protocol and was killed.
        """
        fields = {"op": "call", "tool": tool, "arguments": dict(arguments), "seed": seed, "fresh": fresh}
        seconds = self._limits.call_seconds if timeout is None else timeout
        result: ToolResult = await self._request(
            fields, messages.result_from_json, seconds=seconds, what=tool, on_progress=on_progress
        )
        return result

    async def self_test(
        self, *, timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> list[SelfTestOutcome]:
        """Run every tool's known-answer test in the worker.

        Args:
            timeout: seconds for all of them; None for the limit of a call for each tool.
            on_progress: told how many tests are done.

        Raises:
            SandboxError: as for ``call``.
        """
        seconds = self._limits.call_seconds * max(1, len(self.tools)) if timeout is None else timeout
        reply = await self._request(
            {"op": "self_test"}, _self_test_reply, seconds=seconds, what="self-test", on_progress=on_progress
        )
        outcomes: list[SelfTestOutcome] = reply.outcomes
        return outcomes

    async def digest(self, *, timeout: float | None = None) -> Digests:
        """The weights as they are now; what is equal to ``digests`` was never changed for good.

        Args:
            timeout: seconds; None for the limit of the start, which reads the same weights.

        Raises:
            SandboxError: as for ``call``.
        """
        seconds = self._limits.start_seconds if timeout is None else timeout
        found: Digests = await self._request(
            {"op": "digest"}, _digests, seconds=seconds, what="the digest of the weights"
        )
        return found

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

    async def hello(self, config: messages.WorkerConfig) -> None:
        """Have the target loaded; ``start_worker`` does it, once.

        Raises:
            TargetRefusedError: the worker will not load it.
            SandboxError: as for ``call``.
        """
        fields = {"op": "hello", "config": config.model_dump()}
        reply = await self._request(
            fields, _hello_reply, seconds=self._limits.start_seconds, what="the start of the worker"
        )
        self.tools = {tool.name: tool for tool in reply.tools}
        self.facts = reply.target
        self.has_reference = reply.reference
        self.digests = reply.digests
        self.stamp = {**self._launched.stamp, "worker": reply.stamp}

    async def _request(
        self,
        fields: Mapping[str, Any],
        parse: Callable[[Any], Any],
        *,
        seconds: float,
        what: str,
        on_progress: OnProgress | None = None,
    ) -> Any:
        request = secrets.token_hex(16)
        try:
            frame = wire.encode_frame({"id": request, **fields})
        except WireError as error:
            raise ToolError(f"{what}: these arguments {error}") from error
        async with self._slots:
            if self.ended is not None:
                raise self.ended.error()
            outstanding = Outstanding(what, parse, seconds=seconds, on_progress=on_progress, late=self._time_out)
            # A cancelled call stays listed, so that its late answer is expected and dropped.
            self._outstanding[request] = outstanding
            self._launched.send(frame)
            try:
                return await outstanding.answer
            except asyncio.CancelledError:
                self._cancel(request)
                raise

    def _cancel(self, call: str) -> None:
        if call not in self._outstanding:
            return
        request, seconds = secrets.token_hex(16), self._limits.call_seconds
        self._outstanding[request] = Outstanding("a cancellation", _nothing, seconds=seconds, late=self._time_out)
        self._launched.send(wire.encode_frame({"id": request, "op": "cancel", "call": call}))

    def _time_out(self, late: Outstanding) -> None:
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
        status, cause = exit_.result(), self._launched.cause
        how = f"was ended: {cause}" if cause else manner(status)
        return WorkerEnd("died", f"the worker process {how}", status, self._tail())

    async def _read(self) -> None:
        parser = wire.FrameParser()
        while data := await self._launched.replies.read(_CHUNK):
            for value in parser.feed(data):
                self._hear(messages.validate(messages.Reply, value))

    def _hear(self, reply: messages.Reply) -> None:
        outstanding = self._outstanding.get(reply.id)
        if outstanding is None:
            raise WireError("an answer to nothing that was asked")
        if [reply.ok, reply.error, reply.progress].count(None) != 2:
            raise WireError("a reply holds exactly one of ok, error and progress")
        if reply.progress is not None:
            outstanding.hear(reply.progress)
            return
        refused = None if reply.error is None else _refusal(outstanding.what, reply.error)
        outcome = refused or outstanding.parse(reply.ok)
        del self._outstanding[reply.id]
        outstanding.settle(outcome)

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
        # Before anything that could fail: nobody may be left waiting.
        for outstanding in self._outstanding.values():
            outstanding.settle(end.error())
        self._outstanding.clear()
        self._launched.kill()
        self._launched.close()


def _hello_reply(value: Any) -> messages.HelloReply:
    return messages.validate(messages.HelloReply, value)


def _digests(value: Any) -> Digests:
    return messages.validate(Digests, value)


def _nothing(value: Any) -> None:
    if value != {}:
        raise WireError("an answer to a cancellation is empty")


def _self_test_reply(value: Any) -> messages.SelfTestReply:
    return messages.validate(messages.SelfTestReply, value)


def _refusal(what: str, error: messages.ErrorBody) -> Exception:
    if error.code in ("tool_error", "unknown_tool"):
        return ToolError(error.message)
    if error.code == "target_refused":
        return TargetRefusedError(error.message)
    if error.code == "unconfined":
        return SandboxUnavailableError(error.message)
    return SandboxError(f"{what}: {error.message} ({error.code})")
