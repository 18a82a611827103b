"""The filter of system calls: judged by running its program for both architectures, and by the kernel for this one."""

from __future__ import annotations

import errno
import platform
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marple.errors import SandboxUnavailableError
from marple.sandboxes.booting import check_architecture
from marple.sandboxes.inside import seccomp
from marple.sandboxes.inside.syscalls import NUMBERS
from tests.sandboxes.confining import confined, outcome

MACHINES = tuple(seccomp.ARCHITECTURES)
HERE = platform.machine()
KILLED = "killed"
NEEDED = """
read write openat close mmap mprotect munmap brk futex clone execve exit_group wait4 getrandom prctl seccomp
landlock_restrict_self sched_getaffinity rseq set_robust_list madvise newfstatat ioctl pipe2 dup3 epoll_pwait setresuid
setgroups capset socketpair sendto recvfrom prlimit64 eventfd2 tgkill
"""
DENIED = """
socket connect bind listen accept accept4 sendmsg sendmmsg recvmmsg setsockopt unshare setns ptrace process_vm_readv
process_vm_writev pidfd_getfd kcmp process_madvise mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick
open_tree open_tree_attr move_mount mount_setattr statmount listmount open_by_handle_at name_to_handle_at bpf
perf_event_open userfaultfd keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register personality
syslog quotactl quotactl_fd clock_settime settimeofday adjtimex clock_adjtime shmget shmat shmctl shmdt semget semop
semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink memfd_secret mknodat reboot swapon swapoff init_module
finit_module delete_module kexec_load kexec_file_load acct sethostname setdomainname vhangup move_pages migrate_pages
fanotify_init inotify_init1 splice tee vmsplice sync chown fchown fchownat mknod execveat sched_setscheduler
process_mrelease lookup_dcookie ioprio_set io_setup modify_ldt iopl ioperm cachestat
"""
ATTRIBUTES = (
    "fchmod fchmodat fchmodat2 utimensat truncate setxattr fsetxattr removexattr getxattr listxattr chmod utime"
)


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), *, arch: int) -> int:
    """The value a filter returns: an interpreter of what of classic BPF it may use."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(arguments + (0,) * 6)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    place = accumulator = 0
    while True:
        operation, yes, no, value = code[place]
        place += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x45: bool(accumulator & value)}[operation]
            place += yes if holds else no


def verdict(machine: str, name: str | int, *arguments: int, arch: int | None = None, **how: Any) -> str:
    number = NUMBERS[machine][name] if isinstance(name, str) else name
    value = run(
        seccomp.bpf(machine, **how),
        number,
        arguments,
        arch=seccomp.ARCHITECTURES[machine] if arch is None else arch,
    )
    if value == 0x7FFF0000:
        return "allowed"
    return KILLED if value == 0x80000000 else errno.errorcode[value & 0xFFFF]


def known(machine: str, names: str) -> list[str]:
    return [name for name in names.split() if name in NUMBERS[machine]]


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_worker_needs_is_allowed_and_what_it_must_not_do_is_not(machine: str) -> None:
    for own_tree in (True, False):
        found = {name: verdict(machine, name, own_tree=own_tree) for name in known(machine, DENIED)}
        assert found == dict.fromkeys(found, "EPERM")
        found = {name: verdict(machine, name, 0, own_tree=own_tree) for name in known(machine, NEEDED)}
        assert found == {**dict.fromkeys(found, "allowed"), "socketpair": "EPERM"}
    assert len(known(machine, DENIED)) > 90
    assert verdict(machine, "clone3") == "ENOSYS"
    assert [verdict(machine, number) for number in (600, 10_000, 2**30 - 1)] == ["ENOSYS"] * 3


@pytest.mark.parametrize("machine", MACHINES)
def test_files_outside_cannot_be_changed_where_they_can_be_seen(machine: str) -> None:
    for name in known(machine, ATTRIBUTES):
        assert verdict(machine, name) == "allowed"
        assert verdict(machine, name, own_tree=False) == "EPERM"
        assert verdict(machine, name, own_tree=False, without=["attributes"]) == "allowed"


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_is_of_one_architecture_only(machine: str) -> None:
    others = {0x40000003, 0x40000028, 0xC000003E, 0xC00000B7, 0} - {seccomp.ARCHITECTURES[machine]}
    assert {verdict(machine, "read", arch=arch) for arch in others} == {KILLED}
    assert {verdict(machine, "read", arch=arch, without=["arch"]) for arch in others} == {"allowed"}
    if machine == "x86_64":
        assert {verdict(machine, 0x40000000 + number) for number in (0, 1, 41, 512, 2**30 - 1)} == {KILLED}


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide(machine: str) -> None:
    def judge(name: str, *arguments: int) -> str:
        return verdict(machine, name, *arguments)

    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert judge("clone", 0x003D0F00 | bit) == "EPERM"
        assert verdict(machine, "clone", bit, without=["namespaces"]) == "allowed"
    assert judge("clone", 0x003D0F00 & ~0x00020000) == "allowed", "a thread"
    assert judge("clone", 0x01200011) == "allowed", "a fork"
    assert [judge("socketpair", family) for family in (1, 2, 10, 16, 40)] == ["allowed", *["EPERM"] * 4]
    assert judge("sendto", 3, 0, 9, 0x4000) == "allowed"
    for address in (1, 2**32, 2**63):
        assert judge("sendto", 3, 0, 9, 0, address) == "EPERM"
    assert [judge("sendto", 3, 0, 9, 1), judge("recvfrom", 3, 0, 9, 1), judge("recvmsg", 3, 0, 1)] == ["EPERM"] * 3
    assert [judge("prlimit64", 0, 7), judge("prlimit64", 1, 7), judge("prlimit64", 2**32)] == [
        "allowed",
        "EPERM",
        "allowed",
    ]
    assert [judge("setpriority", 0, 0), judge("setpriority", 2, 0), judge("setpriority", 0, 9)] == [
        "allowed",
        "EPERM",
        "EPERM",
    ]
    commands = (0x5412, 0x541C, 0x541D, 0x5423, 0x8912, 0x89FF, 0x5412 + 2**32)
    assert {judge("ioctl", 0, command) for command in commands} == {"EPERM"}
    assert {judge("ioctl", 0, command) for command in (0x5401, 0x5413, 0x5421, 0xC020462A)} == {"allowed"}


@pytest.mark.parametrize("part", sorted(seccomp.PARTS - {"attributes"}))
def test_each_part_left_out_opens_something_and_only_that(part: str) -> None:
    for machine in MACHINES:
        names: list[str | int] = [*NUMBERS[machine], 2**20]
        arguments = (0x10000000, 0x5412, 0, 0, 5)
        before = {name: verdict(machine, name, *arguments) for name in names}
        after = {name: verdict(machine, name, *arguments, without=[part]) for name in names}
        opened = {name for name in names if before[name] != after[name]}
        assert {after[name] for name in opened} <= {"allowed"}
        assert opened or part == "arch"


@pytest.mark.parametrize("machine", MACHINES)
def test_docker_is_told_the_same(machine: str) -> None:
    profile = seccomp.docker_profile(machine)
    chance = random.Random(4)
    near = [0, 1, 2, 16, 0x5401, 0x5412, 0x541C, 0x541D, 0x5423, 0x8912, 0x46, 0x20000, 0x10000000, 2**32 - 1]

    def docker(name: str, arguments: tuple[int, ...]) -> str:
        for rule in profile["syscalls"]:
            terms = rule.get("args", ())
            if name in rule["names"] and all(arguments[t["index"]] & t["value"] == t["valueTwo"] for t in terms):
                return "allowed" if rule["action"] == "SCMP_ACT_ALLOW" else errno.errorcode[rule["errnoRet"]]
        return errno.errorcode[profile["defaultErrnoRet"]]

    for name in NUMBERS[machine]:
        # A call without conditions needs no trying.
        for _ in range(200 if name in ("ioctl", "clone", "sendto", "socketpair", "setpriority") else 1):
            values = tuple(chance.choice([*near, chance.getrandbits(16), chance.getrandbits(32)]) for _ in range(6))
            assert docker(name, values) == verdict(machine, name, *values), (name, values)


# ---------------------------------------------------------------------------------------------- numbers


@pytest.mark.skipif(not Path("/usr/include/asm-generic/unistd.h").exists(), reason="no kernel headers")
def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    checked = 0
    generic = Path("/usr/include/asm-generic/unistd.h").read_text()
    aliases = {"3264_fstatfs": "fstatfs", "3264_statfs": "statfs", "3264_lseek": "lseek", "3264_mmap": "mmap"}
    for name, number in re.findall(r"#define __NR3?_?(\w+) (\d+)$", generic, re.MULTILINE):
        name = aliases.get(name, name)
        if name in NUMBERS["aarch64"]:
            assert NUMBERS["aarch64"][name] == int(number), name
            checked += 1
    assert checked > 250
    own = next(Path("/usr/include").glob("x86_64*/asm/unistd_64.h"), None)
    if own is not None:
        found = dict(re.findall(r"#define __NR_(\w+) (\d+)", own.read_text()))
        assert {name: number for name, number in NUMBERS["x86_64"].items() if name in found} == {
            name: int(number) for name, number in found.items()
        }


@pytest.mark.skipif(shutil.which("scmp_sys_resolver") is None, reason="no scmp_sys_resolver")
@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_libseccomp(machine: str) -> None:
    names = ("openat", "clone", "socket", "ptrace", "landlock_restrict_self", "io_uring_setup", "unshare", "prlimit64")
    for name in names:
        said = subprocess.run(["scmp_sys_resolver", "-a", machine, name], capture_output=True, text=True, check=True)
        assert int(said.stdout) == NUMBERS[machine][name], name


def test_another_machine_is_named_with_those_there_are() -> None:
    with pytest.raises(SandboxUnavailableError, match="'riscv64'.*x86_64, aarch64"):
        check_architecture("riscv64")


# ---------------------------------------------------------------------------------------------- the kernel

ATTEMPTS = """
families = [family for family in range(46) for kind in (1, 2, 3) if libc.socket(family, kind, 0) >= 0]
said["families"] = str(sorted(set(families)))
pair = socket.socketpair()
pair[0].send(b"x")
said["pair"] = pair[1].recv(1).decode()
child = os.fork() or os._exit(max(0, -libc.syscall({ptrace}, 0, 0, 0, 0)))
said["ptrace"] = ["done", "EPERM"][os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
ring = ctypes.create_string_buffer(120)
kernel("io_uring", {io_uring_setup}, 1, ctypes.addressof(ring))
kernel("keyring", {keyctl}, 0, -3, 0)
kernel("clone3", {clone3}, 0, 0)
kernel("future", 9999)
tell("terminal", lambda: __import__("fcntl").ioctl(0, 0x5412, b"x"))
tell("fork", lambda: os.waitpid(os.fork() or os._exit(0), 0))
tell("mode", lambda: os.chmod(sys.argv[1] + "/mine", 0o600))
kernel("namespace", {unshare}, 0x04000000)
"""


@pytest.mark.skipif(sys.platform != "linux" or HERE not in MACHINES, reason="needs a filter for this machine")
def test_the_kernel_enforces_it_and_allows_all_of_it_without(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    lines = ATTEMPTS.format(**NUMBERS[HERE])
    without = {"landlock", "capabilities"}
    held = outcome(lines, tmp_path, without=without, own_tree=False)
    denied = dict.fromkeys(("ptrace", "io_uring", "keyring", "terminal", "mode", "namespace"), "EPERM")
    assert held == {"families": "[]", "pair": "x", "clone3": "ENOSYS", "future": "ENOSYS", "fork": "done", **denied}
    assert outcome(lines, tmp_path, without=without)["mode"] == "done"
    open_ = outcome(lines, tmp_path, without={*without, "seccomp"}, own_tree=False)
    assert len(open_["families"].split(",")) > 3
    assert (open_["ptrace"], open_["mode"], open_["terminal"]) == ("done", "done", "ENOTTY")
    assert open_["clone3"] != "ENOSYS"


FOREIGN = """
import mmap
code = {code}
page = mmap.mmap(-1, 4096, prot=7)
page.write(code)
said["result"] = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
# mov eax, 20 (getpid of 32-bit programs); int 0x80; ret - and mov eax, 0x40000027 (getpid of x32); syscall; ret.
PROGRAMS = {"i386": b"\xb8\x14\x00\x00\x00\xcd\x80\xc3", "x32": b"\xb8\x27\x00\x00\x40\x0f\x05\xc3"}


@pytest.mark.skipif(HERE != "x86_64" or sys.platform != "linux", reason="machine code of x86-64")
@pytest.mark.parametrize("which", PROGRAMS)
def test_a_call_of_another_architecture_ends_the_process(which: str, tmp_path: Path) -> None:
    lines = FOREIGN.format(code=PROGRAMS[which])
    assert confined(lines, tmp_path, without={"landlock"}).returncode == -signal.SIGSYS
    assert outcome(lines, tmp_path, without={"landlock", "arch"})["result"]
