"""Which bubblewrap is trusted, and what is said where one is missing, too old or refused by the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marple.errors import SandboxUnavailableError
from marple.sandboxes.bubblewrap import binary as bwrap_binary
from marple.sandboxes.bubblewrap import uids as worker_uids
from marple.sandboxes.bubblewrap.binary import check_root_tools, explain, find_bwrap, missing_for_root
from marple.sandboxes.bubblewrap.uids import RANGE, claim_uid

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that root owns")


def fake(path: Path, says: str = "bubblewrap 0.8.0", *, mode: int = 0o755) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(mode)
    return path


def refusal(path: Path | None) -> str:
    with pytest.raises(SandboxUnavailableError) as caught:
        find_bwrap(path)
    return str(caught.value)


def test_the_one_that_packages_install_is_taken() -> None:
    path, version = find_bwrap()
    assert path.is_absolute()
    assert path.stat().st_uid == 0
    assert tuple(int(one) for one in version.split(".")) >= bwrap_binary.LEAST


def test_the_search_path_and_the_current_directory_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "bwrap", "bubblewrap 99.0.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:.")
    assert find_bwrap()[1] != "99.0.0"


def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap_binary, "PLACES", (tmp_path / "nowhere",))
    assert "is not installed" in refusal(None)
    assert "apt install bubblewrap" in refusal(None)
    assert "is not installed" in refusal(tmp_path / "nowhere")


@needs_root
def test_one_that_is_too_old_is_named_with_its_version(tmp_path: Path) -> None:
    found = refusal(fake(tmp_path / "bwrap", "bubblewrap 0.7.0"))
    assert "bubblewrap 0.7.0, which is too old: 0.8.0 or newer" in found
    assert find_bwrap(fake(tmp_path / "newer", "bubblewrap 0.11.0-rc1"))[1] == "0.11.0"


@needs_root
@pytest.mark.parametrize("says", ["", "hello", "bubblewrap", "bubblewrap x.y", "bubblewrap 1.0\nand more"])
def test_what_does_not_say_that_it_is_bubblewrap_is_not(tmp_path: Path, says: str) -> None:
    assert "is not bubblewrap" in refusal(fake(tmp_path / "bwrap", says))


@needs_root
def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    assert "is not a program" in refusal(tmp_path / "text")
    assert "is not a program" in refusal(tmp_path)
    (tmp_path / "elf").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "elf").chmod(0o755)
    assert "cannot be run" in refusal(tmp_path / "elf")


def test_what_others_could_have_changed_is_refused(tmp_path: Path) -> None:
    assert "belongs to another user" in refusal(owned_by_another(fake(tmp_path / "own")))
    if os.geteuid() == 0:
        assert "can be written by others" in refusal(fake(tmp_path / "open", mode=0o777))
        assert "is setuid" in refusal(fake(tmp_path / "setuid", mode=0o4755))
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder").chmod(0o777)
        assert "folder can be written by others" in refusal(fake(tmp_path / "folder" / "bwrap"))
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "open")
        assert "open can be written by others" in refusal(link)


def owned_by_another(path: Path) -> Path:
    if os.geteuid() == 0:
        os.chown(path, 64321, 64321)
    return path


def test_a_relative_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "bwrap")
    monkeypatch.chdir(tmp_path)
    assert "absolute path" in refusal(Path("bwrap"))


def test_without_setpriv_root_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap_binary, "SETPRIV", tmp_path / "setpriv")
    with pytest.raises(SandboxUnavailableError, match="util-linux"):
        check_root_tools()


@pytest.mark.parametrize(
    ("knob", "value", "advice"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "bwrap-userns-restrict"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces"),
        ("nothing", "", "--sandbox docker"),
    ],
)
@pytest.mark.parametrize(
    "said",
    [
        "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
        "bwrap: setting up uid map: Permission denied",
        "bwrap: No permissions to create new namespace, likely because the kernel does not allow it",
        "bwrap: No permissions to creating new namespace, likely because the kernel does not allow it",
        "bwrap: Creating new namespace failed: nesting depth or limits exceeded (ENOSPC)",
    ],
)
def test_a_kernel_without_user_namespaces(
    said: str, knob: str, value: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bwrap_binary, "_knob", lambda name: value if name == knob else "")
    told = explain(said)
    assert "refuses user namespaces" in told
    assert said in told
    assert advice in told


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("bwrap: Unknown option --disable-userns", "0.8.0 or newer"),
        ("bwrap: Can't find source path /x: No such file or directory", "cannot be read by this user"),
        ("setpriv: failed to execute /python/bin/python3: Permission denied", "cannot be read by this user"),
        (
            "bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
            "seccomp profile or a missing capability",
        ),
        ("", "it said nothing"),
    ],
)
def test_what_else_bubblewrap_may_say(said: str, advice: str) -> None:
    assert advice in explain(said)


def test_a_root_without_capabilities_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap_binary, "_CAPABILITIES", {"CAP_NOT_YET_THERE": 60})
    assert "lacks CAP_NOT_YET_THERE" in missing_for_root()
    assert "--sandbox docker" in missing_for_root()


# ---------------------------------------------------------------------------------------------- user ids


def test_two_sandboxes_never_share_a_user_id(tmp_path: Path) -> None:
    first, second = claim_uid(tmp_path / "locks"), claim_uid(tmp_path / "locks")
    assert (first.number, second.number) == (RANGE.start, RANGE.start + 1)
    first.release()
    first.release()
    third = claim_uid(tmp_path / "locks")
    assert third.number == RANGE.start
    second.release()
    third.release()


def test_the_end_of_a_process_gives_its_user_id_back(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        claim_uid(tmp_path / "locks")
        os._exit(0)
    os.waitpid(child, 0)
    uid = claim_uid(tmp_path / "locks")
    assert uid.number == RANGE.start
    uid.release()


def test_when_none_is_free_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_uids, "RANGE", range(RANGE.start, RANGE.start + 1))
    uid = claim_uid(tmp_path / "locks")
    with pytest.raises(SandboxUnavailableError, match="no user id"):
        claim_uid(tmp_path / "locks")
    uid.release()
    (tmp_path / "link").symlink_to(tmp_path / "locks")
    with pytest.raises(SandboxUnavailableError, match="no user id can be claimed"):
        claim_uid(tmp_path / "link")


def test_ids_that_a_user_has_or_that_do_not_exist_are_left_alone() -> None:
    assert worker_uids._is_taken(0)
    assert worker_uids._is_taken(2**32 - 1)
    assert not worker_uids._is_taken(RANGE.start)
