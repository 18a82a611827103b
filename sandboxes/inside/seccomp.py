"""A filter of system calls: an allow-list as classic BPF, made in pure Python.

What Python, NumPy, PyTorch and the processes they start need is allowed. Every other call the tables know fails with
``EPERM``, and what they do not know, being newer, with ``ENOSYS``. A call of another architecture ends the process.
Sockets cannot be made at all: ``socket()`` is denied for every family, and what a pair of connected ones could use to
reach another address is denied too. Where a process sees the host's own files, what Landlock does not cover is denied
as well: modes, times and attributes of files, and their truncation by path.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import platform
import struct
from collections.abc import Collection
from typing import Any

# Inside a sandbox there is no package, only the files beside this one.
_TABLES = f"{__package__}.syscalls" if __package__ else "syscalls"
NUMBERS: dict[str, dict[str, int]] = importlib.import_module(_TABLES).NUMBERS

__all__ = ["ALLOWED", "ARCHITECTURES", "PARTS", "Unsupported", "bpf", "docker_profile", "install"]

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Linux's AUDIT_ARCH by the machine's name."""
PARTS = frozenset(
    {
        "arch",
        "socket",
        "namespaces",
        "tracing",
        "mounts",
        "kernel",
        "ioctl",
        "io_uring",
        "attributes",
        "locks",
        "others",
    }
)
"""What can be left out of the filter, to see that it is needed."""

_DOCKER_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

_FILES = """
read write open close stat fstat lstat newfstatat lseek pread64 pwrite64 readv writev preadv pwritev preadv2
pwritev2 access faccessat faccessat2 openat openat2 creat pipe pipe2 dup dup2 dup3 fcntl fsync fdatasync
sync_file_range ftruncate fallocate getdents getdents64 getcwd chdir fchdir rename renameat renameat2 mkdir
mkdirat rmdir link linkat unlink unlinkat symlink symlinkat readlink readlinkat umask statfs fstatfs statx sendfile
copy_file_range fadvise64 readahead close_range memfd_create
"""
# What Landlock does not cover: by these the user's own files can be changed, or watched, wherever they are.
_ATTRIBUTES = """
chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat truncate getxattr lgetxattr fgetxattr listxattr
llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
"""
_MEMORY = """
mmap mprotect munmap mremap brk msync mincore madvise mlock munlock mlock2 mlockall munlockall mbind set_mempolicy
get_mempolicy membarrier pkey_alloc pkey_free pkey_mprotect map_shadow_stack mseal
"""
_WAITING = """
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime pause nanosleep clock_nanosleep clock_gettime
clock_getres gettimeofday time times getitimer setitimer alarm timer_create timer_settime timer_gettime
timer_getoverrun timer_delete futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list
restart_syscall rseq
"""
_PROCESSES = """
fork vfork execve exit exit_group wait4 waitid kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open
pidfd_send_signal rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
getpid getppid gettid getpgid setpgid getpgrp getsid setsid getuid geteuid getgid getegid getgroups getresuid
getresgid setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capget capset prctl
arch_prctl set_tid_address set_thread_area get_thread_area getrlimit setrlimit prlimit64 getrusage sysinfo uname
getcpu getrandom getpriority setpriority sched_yield sched_getaffinity sched_setaffinity sched_getparam
sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_getattr seccomp
landlock_create_ruleset landlock_add_rule landlock_restrict_self uprobe uretprobe
"""
# Of a pair that was made connected; nothing else can be made. Messages could name another address.
_PAIRS = "recvfrom recvmsg shutdown getsockopt getsockname getpeername sendto socketpair"

ALLOWED = frozenset(" ".join((_FILES, _ATTRIBUTES, _MEMORY, _WAITING, _PROCESSES, _PAIRS, "clone ioctl")).split())
"""The calls that are allowed, some of them only with some arguments."""

_OPENED = {
    "socket": "socket connect bind listen accept accept4 sendmsg sendmmsg recvmmsg",
    "namespaces": "unshare setns",
    "tracing": "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise",
    "mounts": "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr "
    "statmount listmount open_by_handle_at name_to_handle_at",
    "kernel": "bpf perf_event_open userfaultfd keyctl add_key request_key personality syslog quotactl clock_settime "
    "settimeofday adjtimex clock_adjtime shmget shmat shmctl shmdt semget semop semctl msgget msgsnd msgrcv msgctl "
    "mq_open memfd_secret mknod mknodat reboot swapon swapoff init_module finit_module delete_module kexec_load",
    "ioctl": "",
    "io_uring": "io_uring_setup io_uring_enter io_uring_register",
    "attributes": _ATTRIBUTES,
    "locks": "flock",
    "others": "sched_setparam sched_setscheduler sched_setattr",
}

_ALL, _INT, _OUT_OF_BAND = 2**64 - 1, 2**32 - 1, 0x1
_NAMESPACES = 0x7E020000
_AF_UNIX = 1
# Argument, mask, value: allowed if of every argument named the bits of the mask are the value.
_PASSES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "clone": ((0, _NAMESPACES, 0),),
    # Not to an address: a pair of datagram sockets could send to any. Data out of band has no use here.
    "sendto": ((4, _ALL, 0), (3, _OUT_OF_BAND, 0)),
    "recvfrom": ((3, _OUT_OF_BAND, 0),),
    "recvmsg": ((2, _OUT_OF_BAND, 0),),
    "socketpair": ((0, _INT, _AF_UNIX),),
    # Of this process only, not of another one of the same user.
    "prlimit64": ((0, _INT, 0),),
    "setpriority": ((0, _INT, 0), (1, _INT, 0)),
    "sched_setaffinity": ((0, _INT, 0),),
}
_PASSES_WITHOUT = {"clone": "namespaces", "sendto": "socket", "recvfrom": "socket", "recvmsg": "socket"}
_PASSES_WITHOUT |= {"socketpair": "socket"} | dict.fromkeys(("prlimit64", "setpriority", "sched_setaffinity"), "others")
# Mask, value of the command, which is the second argument, of which the kernel takes the low half.
_REFUSES: dict[str, tuple[tuple[int, int], ...]] = {
    # Typing into a terminal or taking it over, and everything about network interfaces.
    "ioctl": ((_INT, 0x5412), (_INT, 0x541C), (_INT, 0x541D), (_INT, 0x5423), (0xFF00, 0x8900)),
    # Locks, leases and notices on files that others have too would tell of one sandbox in another, and on the host.
    "fcntl": tuple((_INT, command) for command in (6, 7, 37, 38, 1024, 1026)),
}
_REFUSES_WITHOUT = {"ioctl": "ioctl", "fcntl": "locks"}

_X32 = 0x40000000
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _AND, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCH = 0, 4


class Unsupported(Exception):
    """There is no table for this machine."""


def bpf(arch: str | None = None, *, without: Collection[str] = (), own_tree: bool = True) -> bytes:
    """The filter as an array of ``struct sock_filter``.

    Args:
        arch: the machine as ``platform.machine()`` calls it; None for this one.
        without: of ``PARTS``, what is not to be denied.
        own_tree: whether the process has a file tree of its own; if not, attributes of files cannot be touched.

    Raises:
        Unsupported: there is no table for this architecture.
    """
    arch = arch or platform.machine()
    if arch not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise Unsupported(f"there is no system call filter for the architecture {arch!r} (there is for: {known})")
    numbers = NUMBERS[arch]
    opened = {name for part in without for name in _OPENED.get(part, "").split()}
    allowed = (ALLOWED if own_tree else ALLOWED - set(_ATTRIBUTES.split())) | opened
    code: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, _ARCH)]
    if "arch" not in without:
        code += [(_JUMP_EQUAL, 1, 0, ARCHITECTURES[arch]), (_RETURN, 0, 0, _KILL)]
    code.append((_LOAD, 0, 0, _NUMBER))
    if arch == "x86_64" and "arch" not in without:
        code += [(_JUMP_ANY_BIT, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for name in sorted(allowed & numbers.keys(), key=numbers.__getitem__):
        check = _check(name, without)
        code += [(_JUMP_EQUAL, 0, len(check), numbers[name]), *check]
    if "clone3" in numbers:
        code += [(_JUMP_EQUAL, 0, 1, numbers["clone3"]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    code += [(_JUMP_ABOVE, 0, 1, max(numbers.values())), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    code.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(struct.pack("=HBBI", operation, yes, no, value) for operation, yes, no, value in code)


_DENY = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
_PASS = (_RETURN, 0, 0, _ALLOW)


def _check(name: str, without: Collection[str]) -> list[tuple[int, int, int, int]]:
    """What becomes of a call that is allowed, by its arguments."""
    code: list[tuple[int, int, int, int]] = []
    if name in _REFUSES and _REFUSES_WITHOUT[name] not in without:
        for mask, value in _REFUSES[name]:
            code += [_argument(1), (_AND, 0, 0, mask), (_JUMP_EQUAL, 0, 1, value), _DENY]
        return [*code, _PASS]
    for number, mask, value in _PASSES.get(name, ()) if _PASSES_WITHOUT.get(name) not in without else ():
        for half in (0, 1):
            bits = mask >> 32 * half & _INT
            if bits:
                wanted = value >> 32 * half & _INT
                code += [_argument(number, half), (_AND, 0, 0, bits), (_JUMP_EQUAL, 1, 0, wanted), _DENY]
    return [*code, _PASS]


def _argument(number: int, half: int = 0) -> tuple[int, int, int, int]:
    """Load the low (0) or the high (1) half of an argument; both architectures are little-endian."""
    return (_LOAD, 0, 0, 16 + 8 * number + 4 * half)


def install(program: bytes) -> None:
    """Put a filter on all threads of this process and on everything it will start, for good.

    Raises:
        OSError: the kernel refused it.
    """

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    held = Program(len(program) // 8, ctypes.addressof(code))
    machine = platform.machine()
    if machine not in NUMBERS:
        raise OSError(errno.ENOSYS, f"no system call filter for the architecture {machine!r}")
    set_no_new_privs, mode_filter, every_thread = 38, 1, 1
    libc.prctl(set_no_new_privs, 1, 0, 0, 0)
    if libc.syscall(NUMBERS[machine]["seccomp"], mode_filter, every_thread, ctypes.byref(held)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refused the system call filter: {errno.errorcode.get(number, number)}")


def docker_profile(arch: str | None = None) -> dict[str, Any]:
    """The same rules as Docker's seccomp profile.

    Raises:
        Unsupported: there is no table for this architecture.
    """
    arch = arch or platform.machine()
    bpf(arch)
    plain = sorted((ALLOWED & NUMBERS[arch].keys()) - _PASSES.keys() - _REFUSES.keys())
    rules: list[dict[str, Any]] = [{"names": plain, "action": "SCMP_ACT_ALLOW"}]
    checked = list(_PASSES.items())
    for name, refused in _REFUSES.items():
        checked += [(name, ((1, mask, value),)) for mask, value in _beside(refused)]
    for name, conditions in checked:
        arguments = [
            {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
            for index, mask, value in conditions
        ]
        rules.append({"names": [name], "action": "SCMP_ACT_ALLOW", "args": arguments})
    rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": [_DOCKER_ARCHITECTURES[arch]],
        "syscalls": rules,
    }


# The byte that tells whose command it is comes first: whole groups are denied by it.
_ORDER = (*range(8, 16), *range(16, 32), *range(8))


def _beside(
    denied: Collection[tuple[int, int]], depth: int = 0, mask: int = 0, value: int = 0
) -> list[tuple[int, int]]:
    """Masks and values that together hold for every number for which none of the denied ones does.

    Docker's format knows no "unless".
    """
    left = [one for one in denied if (one[1] ^ value) & one[0] & mask == 0]
    if not left:
        return [(mask, value)]
    if any(one[0] & ~mask == 0 for one in left):
        return []
    bit = 1 << _ORDER[depth]
    return [pair for one in (0, bit) for pair in _beside(left, depth + 1, mask | bit, value | one)]
