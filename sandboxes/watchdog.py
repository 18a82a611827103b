"""Watch the memory of a whole sandbox from outside, for where no control group does.

Five times a second the memory of all its processes is added up from ``/proc``: anonymous and shared memory, in RAM and
in swap, each shared page counted once (proportional set size), and what lies in files that only exist in memory. Pages
of files on disk are left out, as the kernel can drop them. Between two looks a sandbox can take more than its limit;
what it can take is bounded by how fast a machine can fill memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from marple.sandboxes.outside import processes

__all__ = ["Watchdog", "members", "memory_of"]

_SECONDS = 0.2
_KIB = 1024
_RESIDENT = ("RssAnon", "RssShmem", "VmSwap")
_PROPORTIONAL = ("Pss_Anon", "Pss_Shmem", "SwapPss")


class Watchdog:
    """Ends a sandbox that takes more memory than it may."""

    def __init__(
        self,
        pid: int,
        most_bytes: int,
        kill: Callable[[], None],
        *,
        scratch: Sequence[str] = (),
        out_of_memory: Callable[[], bool] | None = None,
    ) -> None:
        """Nothing is watched before ``start`` or ``watch``.

        Args:
            pid: the first process of the sandbox: all its descendants belong to it, and all processes of its session.
            most_bytes: most memory of all of them together.
            kill: ends every process of the sandbox; called once, in the watching thread.
            scratch: where temporary files in memory are inside the sandbox, to be counted too.
            out_of_memory: asked instead of adding up, where a control group holds the limit: whether the kernel had to
                end a process for it. What is left of such a sandbox is ended too.
        """
        self.exceeded = ""
        """Why the sandbox was ended, '' as long as it was not."""
        self.highest = 0
        """The most bytes seen so far."""
        self._pid, self._most, self._kill = pid, most_bytes, kill
        self._scratch = tuple(scratch)
        self._out_of_memory = out_of_memory
        self._known: dict[int, int] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch in a thread of its own, until ``stop`` or the end of the sandbox."""
        self._thread = threading.Thread(target=self.watch, daemon=True, name=f"watch-{self._pid}")
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; harmless when repeated."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def watch(self, ended: Callable[[float], bool] | None = None) -> None:
        """Look again and again until the sandbox has ended or was ended.

        Args:
            ended: waits so many seconds for the end of the sandbox and says whether it came; None waits for ``stop``.
        """
        wait = ended or self._stopped.wait
        while not wait(_SECONDS):
            if self.look() or not self._known:
                return

    def look(self) -> bool:
        """Add up once, and end the sandbox if it has too much; whether it was ended."""
        if self._out_of_memory is not None:
            self._known.setdefault(self._pid, 0)
            if self._out_of_memory():
                self._end(f"its processes needed more than {_gib(self._most)} of memory")
            return bool(self.exceeded)
        self._known = members(self._pid, self._known)
        used = memory_of(self._known, more_than=self._most - self._in_scratch()) + self._in_scratch()
        self.highest = max(self.highest, used)
        if used > self._most:
            self._end(f"its {len(self._known)} processes had {_gib(used)} of memory, the limit is {_gib(self._most)}")
        return bool(self.exceeded)

    def _end(self, why: str) -> None:
        self.exceeded = why
        self._kill()

    def _in_scratch(self) -> int:
        total = 0
        for path in self._scratch:
            with contextlib.suppress(OSError):
                size = os.statvfs(f"/proc/{self._pid}/root{path}")
                total += (size.f_blocks - size.f_bfree) * size.f_frsize
        return total


def members(pid: int, known: Mapping[int, int] | None = None) -> dict[int, int]:
    """The processes of a sandbox, and when each was started (clock ticks since boot).

    A process belongs to it that descends from the first one, is in its session, or did so when last looked at: one
    whose parents have ended is still found. In a process namespace of its own nothing can leave the descendants.

    Args:
        pid: the first process.
        known: what the last look gave.
    """
    table = _processes()
    found = {one for one, start in (known or {}).items() if one in table and table[one][2] == start}
    found |= {one for one, (_, session, _) in table.items() if session == pid or one == pid}
    children: dict[int, list[int]] = {}
    for one, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(one)
    waiting = list(found)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return {one: table[one][2] for one in found}


def memory_of(pids: Collection[int], *, more_than: int = -1) -> int:
    """Bytes of memory these processes have together.

    Args:
        pids: processes; those that have ended count nothing.
        more_than: the exact figure only matters above this many bytes. Counting each process's pages as its own is
            quick and never too little, so below this it is what is returned.

    Returns:
        The sum of proportional set sizes where this process may read them, of resident set sizes where not.
    """
    tasks = [one for pid in pids for one in _with_memory(pid)]
    resident = {task: _sum_of(f"/proc/{task}/status", _RESIDENT) for task in tasks}
    files = _only_in_memory(tasks)
    quick = sum(one or 0 for one in resident.values()) + files
    if quick <= more_than:
        return quick
    exact = {task: _sum_of(f"/proc/{task}/smaps_rollup", _PROPORTIONAL) for task in tasks}
    return files + sum(resident[task] or 0 if one is None else one for task, one in exact.items())


def _with_memory(pid: int) -> list[int]:
    """A thread by which the process's memory can be seen: the first one, or another where the first has ended."""
    if _sum_of(f"/proc/{pid}/status", _RESIDENT) is not None:
        return [pid]
    with contextlib.suppress(OSError):
        return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir() if path.name != str(pid)][:1]
    return []


def _processes() -> dict[int, tuple[int, int, int]]:
    """Parent, session and start of every process that can be seen; those that have ended are left out."""
    table = {}
    for pid in processes():
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name of the program may hold anything, brackets included.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            # One whose first thread has ended looks dead while its other threads go on.
            if fields[0] not in (b"Z", b"X") or int(fields[17]) > 1:
                table[pid] = (int(fields[1]), int(fields[3]), int(fields[19]))
    return table


def _sum_of(path: str, names: Iterable[str]) -> int | None:
    """The sum of these lines of a file in /proc, in bytes; None where it cannot be read or has none of them."""
    wanted = tuple(f"{name}:".encode() for name in names)
    try:
        lines = [line.split() for line in Path(path).read_bytes().splitlines() if line.startswith(wanted)]
    except OSError:
        return None
    return sum(int(line[1]) for line in lines) * _KIB if lines else None


def _only_in_memory(pids: Iterable[int]) -> int:
    """Bytes in open files without a name: they are in no process's set of pages unless it maps them."""
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    facts = path.stat()
                    if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0 and os.major(facts.st_dev) == 0:
                        sizes[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(sizes.values())


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
