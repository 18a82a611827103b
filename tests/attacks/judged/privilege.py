"""Ways to more rights; the kernel's account of the sandbox's processes decides where it can."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.attacks.attack import attack
from tests.attacks.sandboxed import Arena, status_of
from tests.attacks.world import Root

_PROGRAM = "id"
_STRANGER = 64321
_EXECUTES = dict.fromkeys(
    ("bubblewrap",), "it may run Python, and no program has more rights than the one that started it"
)


@attack(
    "open settings of the kernel for writing: core_pattern, modprobe, sysrq, a cgroup's release agent", root_only=True
)
def core_pattern(arena: Arena) -> bool:
    return bool(arena.ask("privilege.settings"))


@attack(
    "be the host's root, whatever the number inside",
    leaks={"process": "it runs as the user who starts it, in the tests root, without capabilities"},
    root_only=True,
)
def start_as_root(arena: Arena) -> bool:
    return any("0" in status_of(one).get("Uid", "0").split() for one in arena.shared.pids())


@attack("hold a capability, be able to get one, or run without a filter of system calls", root_only=True)
def capabilities(arena: Arena) -> bool:
    return any(_can_gain(status_of(one)) for one in arena.shared.pids())


def _can_gain(status: dict[str, str]) -> bool:
    held = any(int(status.get(name, "0"), 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"))
    return held or status.get("NoNewPrivs", "").strip() != "1" or status.get("Seccomp", "").strip() != "2"


@attack("make namespaces: unshare, clone3")
def make_namespaces(arena: Arena) -> bool:
    return bool(arena.ask("privilege.namespaces"))


@attack("mount, copy the tree of mounts, chroot, enter a namespace", root_only=True)
def mount_setns(arena: Arena) -> bool:
    return bool(arena.ask("privilege.mounting"))


@attack("become the user 0 again, and run a program that is marked to run as root", root_only=True)
def setuid_binaries(arena: Arena) -> bool:
    with arena.fresh() as sandbox:
        _plant(sandbox.root)
        before = {status_of(one)["Uid"] for one in sandbox.pids()}
        ran = sandbox.ask("privilege.run_setuid", program=f"{sandbox.here}/{_PROGRAM}", as_user=_STRANGER)
        sandbox.ask("privilege.become", hold=True, user=0)
        after = {status_of(one)["Uid"] for one in sandbox.pids()}
    became_root = any("0" in uid.split() for uid in after) and not any("0" in uid.split() for uid in before)
    return became_root or (ran[0] != "0" and ran[1] == "0" if isinstance(ran, list) else False)


def _plant(root: Root) -> None:
    program = shutil.which(_PROGRAM)
    assert program is not None
    copied = root.path / _PROGRAM
    shutil.copyfile(Path(program).resolve(), copied)
    os.chown(copied, 0, 0)
    copied.chmod(0o4755)


@attack("make a device, or open the machine's: memory, disks, virtualisation", root_only=True)
def mknod_devices(arena: Arena) -> bool:
    return bool(arena.ask("privilege.devices"))


@attack("use parts of the kernel made for others: bpf, perf, userfaultfd, io_uring, kexec, secret memory")
def bpf_perf_uffd(arena: Arena) -> bool:
    return bool(arena.ask("privilege.machinery"))


@attack("ask for system calls as a 32-bit program does, which have other numbers")
def wrong_arch(arena: Arena) -> bool:
    answers = [arena.ask("privilege.foreign_call", kind=kind) for kind in ("int80", "x32")]
    return any(answer == {"died": 50} or isinstance(answer, int) and answer > 0 for answer in answers)


@attack("write into what is read-only inside, and into a directory of the host that is open to everyone")
def write_ro(arena: Arena) -> bool:
    sandbox = arena.shared
    confined = arena.name not in ("unconfined", "careless")
    folders = [str(arena.world.open), sandbox.here, f"{sandbox.here}/target"]
    if arena.name in ("bubblewrap", "docker"):
        folders += ["/", "/etc", "/var/tmp"]  # of their own tree
    existing = [f"{sandbox.here}/target/config.json", "/usr/bin/env", "/sbx/code/marple/errors.py", "/etc/passwd"]
    name = "attacked"
    before = _contents(sandbox.root.path)
    # A file of the system is opened for writing in a sandbox only.
    done = arena.ask("privilege.write", folders=folders, existing=existing if confined else [], name=name)
    changed = (arena.world.open / name).exists() or _contents(sandbox.root.path) != before
    for folder in (arena.world.open, sandbox.root.path, sandbox.root.path / "target"):
        (folder / name).unlink(missing_ok=True)
    return changed or bool(done)


def _contents(root: Path) -> dict[str, tuple[int, bytes]]:
    files = (one for one in root.rglob("*") if one.is_file() and "cache" not in one.parts)
    return {str(one): (one.stat().st_mode, one.read_bytes()) for one in files}


@attack("run a program that it has written itself, where it can write", leaks=_EXECUTES)
def run_written(arena: Arena) -> bool:
    folders = [f"{arena.shared.here}/cache", *([] if arena.name == "process" else ["/tmp", "/dev/shm"])]  # noqa: S108
    program = shutil.which(_PROGRAM)
    return str(arena.ask("privilege.run_written", program=program, folders=folders)).count("uid=") > 0


@attack("set the machine's clock")
def clock_tricks(arena: Arena) -> bool:
    return str(arena.ask("privilege.clock")) == "EFAULT"
