"""Run a command on a kernel that lacks something: a filter of system calls answers as such a kernel would.

Started as ``python -m tests.attacks.outer NAME[,NAME...] COMMAND...``; the names are system calls, and ``namespaces``
for a system that lets nobody make one, ``filters`` for one without seccomp.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from tests.attacks.inside.kernel import LIBC, number_of

_LOAD, _EQUAL, _ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2
_CLONE_NEW = 0x7E020000


def _instruction(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return code.to_bytes(2, "little") + bytes((true, false)) + value.to_bytes(4, "little")


def _refuse(name: str, number: int) -> list[bytes]:
    return [
        _instruction(_LOAD, _NUMBER),
        _instruction(_EQUAL, number_of(name), false=1),
        _instruction(_RETURN, _ERROR | number),
    ]


def _refuse_with(name: str, test: int, value: int, number: int) -> list[bytes]:
    return [
        _instruction(_LOAD, _NUMBER),
        _instruction(_EQUAL, number_of(name), false=3),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(test, value, false=1),
        _instruction(_RETURN, _ERROR | number),
    ]


def _program(names: list[str]) -> bytes:
    steps: list[bytes] = []
    for name in names:
        if name == "namespaces":
            steps += _refuse_with("unshare", _ANY, _CLONE_NEW, errno.EPERM)
            steps += _refuse_with("clone", _ANY, _CLONE_NEW, errno.EPERM)
            steps += _refuse("clone3", errno.ENOSYS)
        elif name == "filters":
            steps += _refuse("seccomp", errno.ENOSYS)
            steps += _refuse_with("prctl", _EQUAL, _PR_SET_SECCOMP, errno.EINVAL)
        else:
            steps += _refuse(name, errno.ENOSYS)
    return b"".join([*steps, _instruction(_RETURN, _ALLOW)])


def main(names: list[str], command: list[str]) -> None:
    """Install the filter and become the command."""
    program = _program(names)
    code = ctypes.create_string_buffer(program, len(program))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    given = Filter(len(program) // 8, ctypes.addressof(code))
    assert LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert LIBC.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(given), 0, 0) == 0
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])
