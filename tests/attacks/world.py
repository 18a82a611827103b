"""What the attacks are after: canaries on the host that nothing inside a sandbox may reach.

A canary is a random word of this run. Where one turns up, the attack has succeeded, whatever else it says; listeners
count who comes; a victim process stands for everything else that runs on the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.attacks.inside import kernel

INSIDE = Path(__file__).parent / "inside"
_JOIN_SESSION_KEYRING, _IPC_RMID = 1, 0
_VICTIM = """
import ctypes, secrets, sys
canary = b"can" + b"ary-memory-" + secrets.token_hex(16).encode()
held = ctypes.create_string_buffer(canary)
file = open(sys.argv[1], "rb")
print(canary.decode(), ctypes.addressof(held), flush=True)
sys.stdin.read()
"""


def canary(kind: str) -> str:
    """A word that is found nowhere else."""
    return f"canary-{kind}-{secrets.token_hex(16)}"


class Listeners:
    """Sockets of the host that greet everyone with a canary, and count."""

    def __init__(self) -> None:
        self.greeting = canary("greeting")
        self.callers: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="listeners")
        self._thread.start()

    def add(self, family: int, kind: int, address: Any) -> socket.socket:
        """Listen at an address; the socket's number is its key in ``callers``."""
        one = socket.socket(family, kind)
        one.bind(address)
        if kind == socket.SOCK_STREAM:
            one.listen(64)
        one.setblocking(False)
        self.callers[one.fileno()] = 0
        self._selector.register(one, selectors.EVENT_READ)
        os.write(self._woken, b"x")
        return one

    def remove(self, one: socket.socket) -> None:
        """Stop listening there."""
        self._selector.unregister(one)
        one.close()

    def count(self, one: socket.socket) -> int:
        """How many came; whoever has come before this is asked is counted."""
        return self.callers[one.fileno()]

    def close(self) -> None:
        """Stop listening anywhere."""
        os.write(self._woken, b"q")
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake)
        os.close(self._woken)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if not isinstance(key.fileobj, socket.socket):
                    if b"q" in os.read(self._wake, 64):
                        return
                    continue
                with contextlib.suppress(OSError):
                    self._greet(key.fileobj)

    def _greet(self, one: socket.socket) -> None:
        if one.type == socket.SOCK_DGRAM:
            one.recv(4096)
            self.callers[one.fileno()] += 1
        else:
            caller, _ = one.accept()
            self.callers[one.fileno()] += 1
            with caller:
                caller.settimeout(0.5)
                caller.sendall(self.greeting.encode())
                caller.recv(4096)  # closing on unread bytes would take the greeting back


@dataclass(frozen=True)
class Root:
    """A directory as it is handed to a sandbox: the attacks' code, a name for the processes, a listening socket."""

    path: Path
    token: str
    socket: socket.socket

    @property
    def runner(self) -> Path:
        """The program."""
        return self.path / "attacks" / "runner.py"


@dataclass
class Victim:
    """A process of the host's that has nothing to do with any sandbox."""

    process: subprocess.Popen[str]
    memory: str
    address: int

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None


@dataclass
class World:
    """Everything on the host that an attack is pointed at."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="atk-")))
    listeners: Listeners = field(default_factory=Listeners)
    env: str = field(default_factory=lambda: canary("env"))
    file: str = field(default_factory=lambda: canary("file"))
    argument: str = field(default_factory=lambda: canary("argument"))
    key: str = field(default_factory=lambda: canary("key"))
    path: str = field(default_factory=lambda: canary("path"))

    def __post_init__(self) -> None:
        # Open to everyone: only the sandbox may be what keeps an attack out.
        self.folder.chmod(0o755)
        self.open = self.folder / self.path
        self.open.mkdir()
        self.open.chmod(0o777)
        self.secret = self.folder / "secret.txt"
        self.secret.write_text(self.file + "\n" * secrets.randbelow(5000), encoding="utf-8")
        self.secret.chmod(0o644)
        os.environ["ATTACK_CANARY"] = self.env
        self._listen()
        self._leave_descriptors()
        self._victim: Victim | None = None
        self._roots: list[Root] = []

    def _listen(self) -> None:
        stream, packets = socket.SOCK_STREAM, socket.SOCK_DGRAM
        self.tcp = self.listeners.add(socket.AF_INET, stream, ("127.0.0.1", 0))
        self.udp = self.listeners.add(socket.AF_INET, packets, ("127.0.0.1", 0))
        self.tcp6 = self._listen_at(socket.AF_INET6, "::1")
        self.lan = self._listen_at(socket.AF_INET, _own_address())
        self.abstract = self.listeners.add(socket.AF_UNIX, stream, f"\0{canary('abstract')}")
        self.daemon = self.listeners.add(socket.AF_UNIX, stream, str(self.open / "docker.sock"))
        (self.open / "docker.sock").chmod(0o777)

    def _listen_at(self, family: int, address: str | None) -> socket.socket | None:
        try:
            return self.listeners.add(family, socket.SOCK_STREAM, (address, 0)) if address else None
        except OSError:
            return None

    def _leave_descriptors(self) -> None:
        # As a careless host would: a file and a connection that programs it starts may inherit.
        self._opened = os.open(self.secret, os.O_RDONLY)
        self.near, self._far = socket.socketpair()
        self.near.setblocking(False)
        for number in (self._opened, self._far.fileno()):
            os.set_inheritable(number, True)

    @property
    def canaries(self) -> tuple[str, ...]:
        """Every word that may be found nowhere inside."""
        return (self.env, self.file, self.argument, self.key, self.path, self.listeners.greeting)

    @property
    def victim(self) -> Victim:
        """A process to be found, read and ended; a new one where the last was ended."""
        if self._victim is None or not self._victim.alive:
            self._end_victim()
            arguments = [sys.executable, "-I", "-c", _VICTIM, str(self.secret), self.argument]
            process = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"CANARY": self.env}
            )
            assert process.stdout is not None
            memory, address = process.stdout.readline().split()
            self._victim = Victim(process, memory, int(address))
        return self._victim

    def _end_victim(self) -> None:
        if self._victim is not None:
            process = self._victim.process
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def root(self) -> Root:
        """A new directory to hand to a sandbox."""
        path = self.folder / secrets.token_hex(8)
        path.mkdir()
        (path / "cache").mkdir(mode=0o700)
        (path / "target").mkdir()
        (path / "target" / "config.json").write_text("{}", encoding="utf-8")
        shutil.copytree(INSIDE, path / "attacks", ignore=shutil.ignore_patterns("__pycache__"))
        token = f"atk-{secrets.token_hex(5)}"
        (path / "token").write_text(token, encoding="utf-8")
        listening = self.listeners.add(socket.AF_UNIX, socket.SOCK_STREAM, str(path / "listening"))
        (path / "listening").chmod(0o777)
        for one in path.rglob("*"):
            one.chmod(one.stat().st_mode | (0o555 if one.is_dir() and one.name != "cache" else 0o444))
        # Open to everyone here too.
        for one in (path, path / "target"):
            one.chmod(0o777)
        self._roots.append(Root(path, token, listening))
        return self._roots[-1]

    def close(self) -> None:
        """Remove every trace."""
        self._end_victim()
        self.listeners.close()
        os.close(self._opened)
        self.near.close()
        self._far.close()
        os.environ.pop("ATTACK_CANARY", None)
        for root in self._roots:
            forget_shared_memory(shared_memory_key(root.token))
        shutil.rmtree(self.folder)


def join_keyring(world: World) -> None:
    """Give the calling thread, and what it starts, a session keyring with a canary in it."""
    kernel.call("keyctl", _JOIN_SESSION_KEYRING, None)
    word = world.key.encode()
    kernel.call("add_key", b"user", b"attack", word, len(word), -3)


def shared_memory_key(token: str) -> int:
    """The System V key of a sandbox's processes' name."""
    return int(token.removeprefix("atk-")[:7], 16) + 1


def forget_shared_memory(key: int) -> None:
    """Remove a System V segment; harmless where there is none."""
    if (segment := kernel.call("shmget", key, 0, 0)) >= 0:
        ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # nothing is sent: only the route is looked up
        except OSError:
            return None
        address = str(one.getsockname()[0])
    return None if address.startswith("127.") else address
