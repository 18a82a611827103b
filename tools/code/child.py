"""The process that runs the code of an agent: confined, limited, with two pipes and a directory to itself."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import gc
import math
import mmap
import os
import random
import resource
import signal
import sys
import tempfile
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch

from marple.tools import wire
from marple.tools.code import caps
from marple.tools.code.api import CodeTarget, Meter
from marple.tools.code.confinement import Confinement, is_out_of_reach
from marple.tools.code.running import NAME, Outcome, run_cell
from marple.tools.code.saving import Saver
from marple.tools.code.warden import die_with_parent
from marple.tools.target.target import Target

__all__ = ["NOT_SET_UP", "Cell", "Pipes", "live"]

NOT_SET_UP = 71
"""Exit status of a process that could not be confined; no code has run in it."""

_OUTPUT, _STREAM, _ORDERS = 1, 3, 4
_PR_SET_DUMPABLE = 4


@dataclass(frozen=True)
class Cell:
    """One program to run."""

    code: str
    seed: int
    seconds: int
    keep: bool = False
    """Whether others will follow that go on with its variables."""


@dataclass(frozen=True)
class Pipes:
    """Descriptors of the code's process."""

    output: int
    """What is printed goes here."""
    stream: int
    """What is saved, and how each cell ended."""
    orders: int
    """Further cells come from here."""


def live(
    cell: Cell,
    pipes: Pipes,
    *,
    warden: int,
    supervisor: int,
    confinement: Confinement,
    workplace: Path,
    target: Target,
    device: str,
    limit_memory: bool = True,
) -> NoReturn:
    """Run a cell, and those that follow; for a process that was just forked, and never returns.

    Args:
        cell: the first.
        pipes: open descriptors; they get other numbers here.
        warden: process id of the parent.
        supervisor: process id of its parent.
        confinement: entered here once more, so that the code's domain does not hold the warden.
        workplace: the only directory the code can write in.
        target: the supervisor's copy of the model, which this process has a copy of.
        device: where the code's copy is to be.
        limit_memory: whether the address space is limited; an accelerator's driver reserves too much of it.
    """
    die_with_parent(warden)
    os.setsid()
    _arrange(pipes)
    os.chdir(workplace)
    confinement.enter(workplace)
    if not (is_out_of_reach(warden) and is_out_of_reach(supervisor)):
        print("the code's process could reach its warden", file=sys.stderr)
        os._exit(NOT_SET_UP)
    _limit(cell, memory=limit_memory)
    _settle(workplace)
    confinement.keep_attributes()
    stream = os.fdopen(_STREAM, "wb", closefd=False)
    stream.write(wire.encode_frame({"set_up": True}))
    stream.flush()
    room = _Room(_on_device(target, device), stream)
    orders = os.fdopen(_ORDERS, "rb", closefd=False)
    while True:
        room.run(cell)
        if not cell.keep or (order := wire.read_frame(orders)) is None:
            os._exit(0)
        cell = Cell(**order)


# ---------------------------------------------------------------------------------------------- cells


class _Room:
    """The variables of the code, and what it is given."""

    def __init__(self, target: Target, stream: BinaryIO) -> None:
        import matplotlib.pyplot as plt

        self._stream = stream
        self._count = 0
        self._meter = Meter()
        self._targets = [CodeTarget(target, seed=0, label="target", meter=self._meter)]
        if target.reference is not None:
            self._targets.append(CodeTarget(target.reference, seed=0, label="reference", meter=self._meter))
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        self._variables = vars(main)
        reference = self._targets[1] if len(self._targets) > 1 else None
        self._variables.update(target=self._targets[0], reference=reference, np=np, torch=torch, plt=plt)

    def run(self, cell: Cell) -> None:
        """Run one program and tell how it ended."""
        self._count += 1
        self._seed(cell.seed)
        before = self._meter.cost
        saver = Saver(self._send)
        self._variables["save"] = saver.save
        outcome = run_cell(cell.code, self._variables, name=NAME if self._count == 1 else f"{NAME} {self._count}")
        try:
            saver.save_open_figures()
        except Exception as error:
            outcome = Outcome("raised", outcome.error or f"an open figure could not be kept: {error}")
        for printing in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                printing.flush()
        cost = self._meter.cost
        tokens = (cost.prompt_tokens - before.prompt_tokens, cost.generated_tokens - before.generated_tokens)
        self._send({"done": outcome.kind, "error": outcome.error, "tokens": list(tokens)})
        if outcome.kind == "exited":
            os._exit(0)

    def _seed(self, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        for one in self._targets:
            one.reseed(seed)

    def _send(self, value: Mapping[str, Any]) -> None:
        self._stream.write(wire.encode_frame(value))
        self._stream.flush()


def _on_device(target: Target, device: str) -> Target:
    """The target where the code's copy of it is to be; a model on an accelerator is moved there by this process."""
    if torch.device(device) == target.device:
        return target
    from marple.tools.code.moving import move

    return move(target, device)


# ---------------------------------------------------------------------------------------------- setting up


def _arrange(pipes: Pipes) -> None:
    """Give the descriptors their numbers and close all others."""
    wanted = {1: pipes.output, 2: pipes.output, _STREAM: pipes.stream, _ORDERS: pipes.orders}
    # Out of the way first: one of them may have the number that another is to get.
    spare = {number: fcntl.fcntl(given, fcntl.F_DUPFD, 16) for number, given in wanted.items()}
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, given in spare.items():
        os.dup2(given, number, inheritable=number <= 2)
    os.closerange(5, os.sysconf("SC_OPEN_MAX"))


def _limit(cell: Cell, *, memory: bool) -> None:
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: caps.CPU_SECONDS_KEPT if cell.keep else cell.seconds + 5,
        resource.RLIMIT_FSIZE: caps.FILE_BYTES,
        resource.RLIMIT_NOFILE: caps.DESCRIPTORS,
        resource.RLIMIT_NPROC: caps.PROCESSES,
    }
    if memory:
        wanted[resource.RLIMIT_AS] = _address_space() + caps.MEMORY_BYTES
    for kind, value in wanted.items():
        ceiling = resource.getrlimit(kind)[1]
        value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(kind, (value, value))


def _address_space() -> int:
    """Bytes of address space in use, to a MiB: the kernel tells it nowhere but in procfs, which is not there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    low, high = 0, 1 << 47
    while high - low > 1 << 20:
        middle = (low + high) // 2
        try:
            resource.setrlimit(resource.RLIMIT_AS, (middle, hard))
        except ValueError:  # above the hard limit
            high = middle
            continue
        try:
            mmap.mmap(-1, mmap.PAGESIZE).close()
            high = middle
        except (OSError, MemoryError):
            low = middle
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return math.ceil(high / (1 << 20)) << 20


def _settle(workplace: Path) -> None:
    """The state of a fresh interpreter for code that knows nothing of the processes above it."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for name in ("HOME", "TMPDIR", "MPLCONFIGDIR"):
        os.environ[name] = str(workplace)
    tempfile.tempdir = None
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _text(_OUTPUT)
    sys.stderr = _text(2)
    sys.argv = ["code"]
    np.set_printoptions(linewidth=120)
    torch.set_printoptions(linewidth=120)  # type: ignore[no-untyped-call]
    # A crash in native code says on which line of the program it was.
    faulthandler.enable(file=2, all_threads=False)
    gc.enable()


def _text(descriptor: int) -> Any:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
