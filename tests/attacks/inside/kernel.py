"""System calls by number, for what Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import platform
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"

# Name: number on x86-64, number on aarch64.
_NUMBERS = {
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "landlock_create_ruleset": (444, 444),
    "listmount": (458, 458),
    "memfd_secret": (447, 447),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "prctl": (157, 167),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "seccomp": (317, 277),
    "setns": (308, 268),
    "shmat": (30, 196),
    "shmget": (29, 194),
    "statmount": (457, 457),
    "syslog": (103, 116),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


def number_of(name: str) -> int:
    """A system call's number on this machine."""
    return _NUMBERS[name][0 if X86 else 1]


def call(name: str, *arguments: Any) -> int:
    """The result of a system call; minus the error's number where it failed."""
    converted = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(LIBC.syscall(ctypes.c_long(number_of(name)), *converted))
    return result if result != -1 else -ctypes.get_errno()


def name_of(result: int) -> str:
    """``ok`` or the error's name."""
    return "ok" if result >= 0 else errno.errorcode.get(-result, str(-result))
