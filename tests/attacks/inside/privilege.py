"""Ways to more rights than were given. Settings of the kernel are opened for writing and closed, never written."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import kernel

_SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sysrq-trigger",
    "/proc/sys/vm/overcommit_memory",
    "/sys/fs/cgroup/release_agent",
    "/sys/fs/cgroup/memory/release_agent",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/kernel/uevent_helper",
)
_DEVICES = ("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/kvm", "/dev/fuse", "/dev/vsock")
_NAMESPACES = {"user": 1 << 28, "mount": 1 << 17, "pid": 1 << 29, "net": 1 << 30, "ipc": 1 << 27, "uts": 1 << 26}
_OPEN_TREE_CLONE = 1


def settings() -> list[str]:
    """The kernel's settings that could be written."""
    return [path for path in _SETTINGS if _opens(path, os.O_WRONLY)]


def devices() -> list[str]:
    """The devices that can be opened, and whether new ones can be made."""
    found = [path for path in _DEVICES if _opens(path, os.O_RDONLY | os.O_NONBLOCK)]
    for folder in ("/tmp", "/dev/shm", os.getcwd()):  # noqa: PTH109
        made = tempfile.mktemp(dir=folder)  # noqa: S306 - a device, which no safe function makes
        with contextlib.suppress(OSError):
            os.mknod(made, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            found.append(made)
            Path(made).unlink()
    return found


def _opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
    except OSError:
        return False
    return True


def namespaces() -> list[str]:
    """The namespaces that can be made, each tried in a process of its own."""
    found = [name for name, flag in _NAMESPACES.items() if _in_child(lambda f=flag: kernel.call("unshare", f))]  # type: ignore[misc]
    if _in_child(_clone_user):
        found.append("user by clone3")
    return found


def _clone_user() -> int:
    arguments = (ctypes.c_uint64 * 11)(_NAMESPACES["user"], 0, 0, 0, 17)
    child = kernel.call("clone3", arguments, 88)
    if child == 0:
        os._exit(0)
    return child


def mounting() -> list[str]:
    """The ways to mount, or to see other mounts, that the kernel lets pass; nothing is mounted."""
    ways: dict[str, Callable[[], int]] = {
        "fsopen": lambda: kernel.call("fsopen", b"tmpfs", 0),
        "open_tree": lambda: kernel.call("open_tree", -100, b"/", _OPEN_TREE_CLONE),
        "chroot": lambda: kernel.call("chroot", b"/"),
        "setns": lambda: kernel.call("setns", kernel.call("pidfd_open", os.getpid(), 0), _NAMESPACES["uts"]),
    }
    return [name for name, way in ways.items() if _in_child(way)]


def _in_child(way: Callable[[], int]) -> bool:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(0 if way() >= 0 else 1)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def machinery() -> list[str]:
    """Parts of the kernel for which an ordinary program has no use, as far as they answer."""
    attributes = ctypes.create_string_buffer(b"\1\0\0\0\4\0\0\0\4\0\0\0\1\0\0\0", 120)
    event = ctypes.create_string_buffer(b"\1\0\0\0\x78\0\0\0", 120)
    results = {
        "bpf": kernel.call("bpf", 0, attributes, 72),
        "perf_event_open": kernel.call("perf_event_open", event, 0, -1, -1, 0),
        "userfaultfd": kernel.call("userfaultfd", 0),
        "memfd_secret": kernel.call("memfd_secret", 0),
        "io_uring": kernel.call("io_uring_setup", 4, ctypes.create_string_buffer(120)),
    }
    # These end in EPERM for whoever may not, in another error for whoever may but asks for nonsense.
    nonsense = {"kexec": kernel.call("kexec_file_load", -1, -1, 0, None, 0)}
    found = [name for name, result in results.items() if result >= 0]
    return found + [name for name, result in nonsense.items() if kernel.name_of(result) not in ("EPERM", "ENOSYS")]


def clock() -> str:
    """How far setting the clock gets, with a time at address 0: the kernel's answer, or the filter's."""
    return kernel.name_of(kernel.call("clock_settime", 0, None))


def become(user: int) -> int:
    """Try to be this user, with all rights; stay as it is."""
    for way in (os.setgid, os.setuid):
        with contextlib.suppress(OSError):
            way(user)
    return os.getuid()


def run_setuid(program: str, as_user: int) -> list[str]:
    """The user, and what a program whose file belongs to root and is marked to run as root says of itself."""
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(as_user, as_user, as_user)
        os.setresuid(as_user, as_user, as_user)
    done = subprocess.run([program, "-u"], capture_output=True, text=True, timeout=10, check=False, env={})
    return [str(os.getuid()), done.stdout.strip()]


def run_written(program: str, folders: list[str]) -> list[str]:
    """What a copy of a program says, made in each folder."""
    said = []
    for folder in folders:
        copied = Path(folder) / "written"
        with contextlib.suppress(OSError):
            copied.write_bytes(Path(program).read_bytes())
            copied.chmod(0o755)
            said.append(subprocess.run([copied], capture_output=True, text=True, timeout=10, check=False).stdout)
        copied.unlink(missing_ok=True)
    return said


def foreign_call(kind: str) -> int:
    """The answer to ``getpid`` asked in another system call convention."""
    if platform.machine() != "x86_64":
        return -1
    if kind == "x32":
        kernel.LIBC.syscall(ctypes.c_long(0x40000000 + 39))
        return os.getpid()
    # mov eax, 20; int 0x80; ret: the number of getpid on 32-bit x86.
    code = b"\xb8\x14\0\0\0\xcd\x80\xc3"
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(code)
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        result = int(function())
        os.write(2, f"int 0x80 says {result}\n".encode())
        os._exit(50 if result == os.getpid() else 51)


def write(folders: list[str], existing: list[str], name: str) -> list[str]:
    """Make a file in each folder; open existing files for writing, without writing."""
    done = []
    for folder in folders:
        with contextlib.suppress(OSError):
            (Path(folder) / name).write_text("attacked", encoding="utf-8")
            done.append(folder)
    done += [path for path in existing if _opens(path, os.O_WRONLY)]
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            os.close(os.open(f"/dev/fd/{number}", os.O_WRONLY | os.O_NONBLOCK))
    return done
