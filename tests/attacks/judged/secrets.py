"""Ways to what is nobody's business inside: a canary that turns up in an answer decides."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import marple.tasks
from tests.attacks.attack import attack
from tests.attacks.inside import kernel
from tests.attacks.sandboxed import Arena
from tests.attacks.world import canary, shared_memory_key

_TASKS = Path(marple.tasks.__path__[0])
_TMP = ["/tmp", "/dev/shm", "/var/tmp"]  # noqa: S108 - where sandboxes look


@attack("read the variables of its own environment, Python's and the C library's")
def env_self(arena: Arena) -> bool:
    return arena.world.env in str(arena.ask("reading.environment"))


@attack("read the environment of every process in /proc")
def env_pid1(arena: Arena) -> bool:
    assert arena.world.victim.alive
    return arena.world.env in str(arena.ask("reading.of_processes", file="environ"))


@attack("read the command line of every process in /proc")
def argv_pid1(arena: Arena) -> bool:
    assert arena.world.victim.alive
    return arena.world.argument in str(arena.ask("reading.of_processes", file="cmdline"))


@attack(
    "read from where on the host the directories inside are mounted (mountinfo, listmount, statmount)",
    control="careless",
)
def mountinfo(arena: Arena) -> bool:
    answer = str(arena.ask("reading.mounts"))
    return any(str(one) in answer for one in (arena.shared.root.path.name, arena.world.folder.name))


@attack(
    "read the names of the control groups it is in, which are the host's",
    control="none: here only sandboxes are in control groups of their own; see the protection unshare-cgroup",
)
def cgroup_path(arena: Arena) -> bool:
    answer = str(arena.ask("reading.files", paths=["/proc/self/cgroup", "/proc/1/cgroup"]))
    lines = {line for one in arena.shared.pids() for line in _content(f"/proc/{one}/cgroup").splitlines()}
    return any(path in answer for path in {line.split(":", 2)[2] for line in lines} if len(path) > 1)


@attack("open a file of the host by its path, around /proc/*/root and above /; the password file")
def host_files(arena: Arena) -> bool:
    answer = str(
        arena.ask(
            "reading.files", paths=[str(arena.world.secret), "/etc/shadow", str(Path("~root/.bashrc").expanduser())]
        )
    )
    shadow = _content("/etc/shadow")
    return arena.world.file in answer or bool(shadow and shadow in answer)


@attack(
    "learn that a file of the host exists, and its size, without opening it",
    leaks={"process": "Landlock does not mediate stat()"},
)
def stat_probe(arena: Arena) -> bool:
    size = arena.world.secret.stat().st_size
    return size in arena.ask("reading.sizes", paths=[str(arena.world.secret)])


@attack(
    "read what another sandbox that runs at the same time holds: its staged directory, its temporary files, its keys"
)
def other_runs(arena: Arena) -> bool:
    word, name = canary("other"), canary("name")
    with arena.fresh() as other:
        key = shared_memory_key(other.root.token)
        (other.root.path / "target" / name).write_text(word, encoding="utf-8")
        folders = [*_TMP, f"{other.here}/cache", f"{other.root.path}/cache", f"{other.root.path}/target"]
        other.ask("state.leave", hold=True, word=word, name=name, folders=folders[:5], key=key)
        answer = arena.ask("state.find", name=name, folders=folders, key=key, size=len(word))
        _remove(name)
    return word in str(answer)


@attack("read a key of the host's session keyring, which no namespace separates")
def keyring(arena: Arena) -> bool:
    return arena.world.key in str(arena.ask("reading.keys", description="attack"))


@attack("open a file by its number in the file system (open_by_handle_at), past every directory", root_only=True)
def open_by_handle(arena: Arena) -> bool:
    kind, handle = _handle(arena.world.secret)
    places = [arena.shared.here, "/usr", "/tmp", "/"]  # noqa: S108
    return arena.world.file in str(arena.ask("reading.by_handle", kind=kind, handle=handle, places=places))


@attack("read the kernel's command line, symbols, configuration and log")
def kernel_info(arena: Arena) -> bool:
    answer = arena.ask("reading.kernel_facts")
    known = [_content(path) for path in ("/proc/cmdline", "/proc/partitions", "/proc/version")]
    return any(one and one in text for text in answer for one in known) or len(answer[-1]) > 1000


@attack(
    "learn the machine's name or identity",
    leaks={"process": "the host name is told by a system call that Landlock does not mediate"},
)
def host_identity(arena: Arena) -> bool:
    answer = arena.ask("reading.identity")
    places = ("/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/sys/class/dmi/id/product_uuid")
    known = {platform.node(), *(_content(path) for path in places)}
    return any(one and one in answer for one in known)


@attack("search every file and every file name outside the system's own directories for a canary")
def files_everywhere(arena: Arena) -> bool:
    answer = str(arena.ask("reading.everything", most=20000, further=[str(arena.world.folder)]))
    return any(one in answer for one in arena.world.canaries)


@attack("read the answers: the recipes of the organisms, as Python's package and where they are on the host")
def truth_in_package(arena: Arena) -> bool:
    answer = str(arena.ask("reading.truth", folders=[str(_TASKS), "/sbx", "/python"]))
    recipes = [path.read_text(encoding="utf-8")[:200] for path in _TASKS.rglob("recipes/*.yaml")]
    assert recipes
    return any(one in answer for one in recipes)


@attack(
    "learn where on the host Marple is installed, which says whose machine it is",
    leaks={"process": "it runs from the host's own directories"},
)
def install_path(arena: Arena) -> bool:
    return str(_TASKS.parent) in str(arena.ask("reading.installation"))


@attack("search its own memory for a variable of the host's")
def gt_in_memory(arena: Arena) -> bool:
    return arena.world.env in arena.ask("reading.own_memory")


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _handle(path: Path) -> tuple[int, str]:
    record = ctypes.create_string_buffer((128).to_bytes(4, "little"), 136)
    at = ctypes.c_int()
    result = kernel.LIBC.name_to_handle_at(-100, os.fsencode(path), record, ctypes.byref(at), 0)
    assert result == 0
    size, kind = (int.from_bytes(record.raw[place : place + 4], "little") for place in (0, 4))
    return kind, record.raw[8 : 8 + size].hex()


def _remove(name: str) -> None:
    for folder in _TMP:
        (Path(folder) / name).unlink(missing_ok=True)
