"""Find a bubblewrap that can be trusted, and say in words why one does not work here."""

from __future__ import annotations

import os
import platform
import re
import stat
import subprocess
from functools import cache
from pathlib import Path

from marple.errors import SandboxUnavailableError

__all__ = ["LEAST", "PLACES", "SETPRIV", "UNSHARE", "check_root_tools", "explain", "find_bwrap", "missing_for_root"]

PLACES = (
    Path("/usr/bin/bwrap"),
    Path("/usr/local/bin/bwrap"),
    Path("/bin/bwrap"),
    Path("/run/current-system/sw/bin/bwrap"),
)
"""Where it may be. The search path of the user is not asked: what is found there may be anybody's."""
SETPRIV = Path("/usr/bin/setpriv")
"""What gives up root after the file tree was made; part of util-linux."""
UNSHARE = Path("/usr/bin/unshare")
"""What puts bubblewrap itself into a process namespace when it is started by root; part of util-linux."""
LEAST = (0, 8, 0)
"""The first version with everything that is used, ``--disable-userns`` last."""
_INSTALL = "apt install bubblewrap, dnf install bubblewrap, pacman -S bubblewrap or apk add bubblewrap"
_CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_NET_ADMIN": 12,
    "CAP_SETUID": 7,
    "CAP_SETGID": 6,
    "CAP_SETPCAP": 8,
    "CAP_SYS_CHROOT": 18,
}
_SECONDS = 10.0


def find_bwrap(path: Path | None = None) -> tuple[Path, str]:
    """The binary, with every link resolved, and its version.

    Args:
        path: the one to take; None for the first of ``PLACES`` that exists. It is examined all the same.

    Raises:
        SandboxUnavailableError: there is none, it is too old, or others than root could have changed it.
    """
    found = path if path is not None else next((place for place in PLACES if place.exists()), None)
    if found is None or not found.exists():
        where = str(path) if path is not None else ", ".join(str(place) for place in PLACES)
        raise SandboxUnavailableError(f"bubblewrap is not installed (looked at {where}); {_INSTALL}")
    if not found.is_absolute():
        raise SandboxUnavailableError(f"bubblewrap must be named by its absolute path, not {str(found)!r}")
    real = Path(os.path.realpath(found))
    _check_trusted(real)
    facts = real.stat()
    return real, _version(real, facts.st_mtime_ns, facts.st_ino)


def check_root_tools() -> None:
    """See that what a start by root takes beside bubblewrap is there.

    Raises:
        SandboxUnavailableError: it is not there, or others than root could have changed it.
    """
    for tool in (SETPRIV, UNSHARE):
        if not tool.exists():
            raise SandboxUnavailableError(
                f"{tool} is missing, which a sandbox started from root needs to give root up; install util-linux (on "
                "Alpine: apk add setpriv util-linux-misc), or start Marple as an ordinary user"
            )
        _check_trusted(Path(os.path.realpath(tool)))


def missing_for_root() -> str:
    """What root lacks here to make a sandbox's file tree, '' when it lacks nothing."""
    held = 0
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
    lacking = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if not lacking:
        return ""
    return (
        f"this root lacks {', '.join(lacking)}, as in a container: start Marple as an ordinary user, which needs none "
        "of them where user namespaces are allowed, or give the container these capabilities, or use --sandbox docker "
        "from outside it"
    )


def explain(printed: str) -> str:
    """Why bubblewrap did not start, in words, with what to do about it.

    Args:
        printed: what it wrote on its standard error.
    """
    said = " ".join(printed.split())[:400] or "it said nothing"
    namespaces = re.search(r"RTM_NEWADDR|uid map|No permissions to creat|new namespace|user namespace|NEWUSER", printed)
    if os.geteuid() != 0 and namespaces:
        return f"the kernel refuses user namespaces ({said}): {_namespaces_refused()}"
    if "Unknown option" in printed:
        return f"this bubblewrap lacks an option ({said}); install version {_words(LEAST)} or newer"
    if "Can't find source path" in printed or "Permission denied" in printed:
        return f"something to be shown inside cannot be read by this user ({said})"
    if "Unable to set up new user namespace" in printed or "Operation not permitted" in printed:
        return f"the kernel refuses a step ({said}); in a container this is its seccomp profile or a missing capability"
    return f"bubblewrap ended before the program began ({said})"


def _namespaces_refused() -> str:
    if _knob("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts them to programs with a profile (Ubuntu 23.10 and newer). Give bubblewrap one: apt "
            "install apparmor-profiles, then ln -s /usr/share/apparmor/extra-profiles/bwrap-userns-restrict "
            "/etc/apparmor.d/ and apparmor_parser -r /etc/apparmor.d/bwrap-userns-restrict; or allow them to all "
            "programs with sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _knob("kernel/unprivileged_userns_clone") == "0":
        return "enable them with sysctl kernel.unprivileged_userns_clone=1"
    if _knob("user/max_user_namespaces") == "0":
        return "enable them with sysctl user.max_user_namespaces=10000"
    return (
        "in a container its seccomp profile forbids them: use --sandbox docker from outside it, or a profile that "
        "allows clone and unshare with CLONE_NEWUSER; elsewhere a security module does"
    )


def _knob(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _check_trusted(real: Path) -> None:
    for one in (real, *real.parents):
        facts = one.stat()
        if facts.st_uid != 0 or facts.st_mode & 0o022 and not (stat.S_ISDIR(facts.st_mode) and facts.st_mode & 0o1000):
            who = "belongs to another user than root" if facts.st_uid != 0 else "can be written by others than root"
            raise SandboxUnavailableError(f"{real} is not trusted: {one} {who}; {_INSTALL}")
    facts = real.stat()
    if not stat.S_ISREG(facts.st_mode) or not facts.st_mode & 0o111:
        raise SandboxUnavailableError(f"{real} is not a program; {_INSTALL}")
    if facts.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise SandboxUnavailableError(f"{real} is setuid, which Marple does not support; chmod u-s,g-s {real}")


@cache
def _version(real: Path, changed: int, inode: int) -> str:
    """What it says of itself; asked once for each file."""
    try:
        asked = subprocess.run([str(real), "--version"], env={}, cwd="/", capture_output=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxUnavailableError(f"{real} cannot be run on this {platform.machine()}: {error}") from error
    said = asked.stdout.decode("utf-8", "replace").strip()
    match = re.fullmatch(r"bubblewrap (\d+)\.(\d+)(?:\.(\d+))?\S*", said)
    if asked.returncode != 0 or match is None:
        raise SandboxUnavailableError(f"{real} is not bubblewrap: it says {said[:100]!r} for its version; {_INSTALL}")
    version = tuple(int(one or 0) for one in match.groups())
    if version < LEAST:
        raise SandboxUnavailableError(
            f"{real} is bubblewrap {_words(version)}, which is too old: {_words(LEAST)} or newer is needed ({_INSTALL})"
        )
    return _words(version)


def _words(version: tuple[int, ...]) -> str:
    return ".".join(str(one) for one in version)
