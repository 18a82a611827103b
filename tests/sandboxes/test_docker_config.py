"""The container that is asked for, and what is noticed when another one was made."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from marple.sandboxes.docker.config import PROTECTIONS, Plan, container_config, differences
from marple.sandboxes.installation import Mount

PLAN = Plan(
    image="sha256:0",
    command=("/python/bin/python3", "-I"),
    mounts=(Mount(Path("/usr"), PurePosixPath("/usr")),),
    hidden=(Mount(Path("/usr/lib"), PurePosixPath("/usr/lib")), Mount(Path("/etc/passwd"), PurePosixPath("/usr/x"))),
    nothing=Path("/nothing"),
    empty=Path("/empty"),
    memory=2**30,
    processes=64,
    descriptors=256,
    file_bytes=2**20,
    scratch_bytes=2**24,
    seccomp="{}",
    labels={"marple.sandbox": "1"},
    runtime="runc",
)


def made(config: dict[str, Any]) -> dict[str, Any]:
    """What an honest daemon reports of a container: the same, with nothings in between."""
    host = {**copy.deepcopy(config["HostConfig"]), "Binds": None, "Dns": [], "ConsoleSize": [0, 0], "CpuShares": 0}
    own = {name: copy.deepcopy(value) for name, value in config.items() if name != "HostConfig"}
    mounts = [
        {"Type": "bind", "Source": one["Source"], "Destination": one["Target"], "RW": False, "Propagation": "rprivate"}
        for one in host["Mounts"]
    ]
    return {"Config": {**own, "Volumes": None, "OnBuild": None}, "HostConfig": host, "Mounts": mounts}


CONFIG = container_config(PLAN)


def test_what_was_asked_for_has_no_difference() -> None:
    assert differences(CONFIG, made(CONFIG)) == []


def test_the_hardened_container_field_by_field() -> None:
    host = CONFIG["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges", "seccomp={}"]
    assert host["PidsLimit"] == 64
    assert host["Memory"] == host["MemorySwap"] == 2**30
    assert host["IpcMode"] == "none"
    assert host["LogConfig"]["Type"] == "none"
    assert host["RestartPolicy"]["Name"] == "no"
    assert all(mount["ReadOnly"] and mount["BindOptions"]["NonRecursive"] for mount in host["Mounts"])
    assert set(host["Tmpfs"]) == {"/tmp", "/dev/shm", "/sbx/root/cache"}
    assert all("noexec,nosuid,nodev" in options and "mode=" in options for options in host["Tmpfs"].values())
    assert CONFIG["User"] == "65532:65532"
    assert CONFIG["StdinOnce"] is True
    assert CONFIG["Tty"] is False


def test_covers_lie_over_what_is_hidden_and_over_what_docker_writes() -> None:
    over = {mount["Target"]: mount["Source"] for mount in CONFIG["HostConfig"]["Mounts"]}
    assert over["/usr/lib"] == "/empty"
    assert over["/usr/x"] == over["/etc/resolv.conf"] == over["/etc/hosts"] == over["/etc/hostname"] == "/nothing"


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, tuple[str, Change]] = {
    "privileged": ("HostConfig.Privileged is True", lambda c: c["HostConfig"].update(Privileged=True)),
    "network": ("HostConfig.NetworkMode", lambda c: c["HostConfig"].update(NetworkMode="bridge")),
    "capability": ("HostConfig.CapAdd", lambda c: c["HostConfig"].update(CapAdd=["SYS_ADMIN"])),
    "capabilities kept": ("HostConfig.CapDrop", lambda c: c["HostConfig"].update(CapDrop=None)),
    "no seccomp": ("HostConfig.SecurityOpt", lambda c: c["HostConfig"].update(SecurityOpt=["no-new-privileges"])),
    "other seccomp": ("HostConfig.SecurityOpt[1]", lambda c: c["HostConfig"]["SecurityOpt"].__setitem__(1, "x")),
    "an added security option": ("SecurityOpt", lambda c: c["HostConfig"]["SecurityOpt"].append("label=disable")),
    "no memory limit": ("HostConfig.Memory is 0", lambda c: c["HostConfig"].update(Memory=0)),
    "swap": ("HostConfig.MemorySwap is -1", lambda c: c["HostConfig"].update(MemorySwap=-1)),
    "no process limit": ("HostConfig.PidsLimit is None", lambda c: c["HostConfig"].update(PidsLimit=None)),
    "writable root": ("HostConfig.ReadonlyRootfs", lambda c: c["HostConfig"].update(ReadonlyRootfs=False)),
    "old binds": ("HostConfig.Binds", lambda c: c["HostConfig"].update(Binds=["/var/run/docker.sock:/s"])),
    "a device": ("HostConfig.Devices", lambda c: c["HostConfig"].update(Devices=[{"PathOnHost": "/dev/kvm"}])),
    "host processes": ("HostConfig.PidMode", lambda c: c["HostConfig"].update(PidMode="host")),
    "a log": ("HostConfig.LogConfig.Type", lambda c: c["HostConfig"]["LogConfig"].update(Type="json-file")),
    "unmasked": ("HostConfig.MaskedPaths", lambda c: c["HostConfig"].update(MaskedPaths=[])),
    "executable scratch": ("HostConfig.Tmpfs./tmp", lambda c: c["HostConfig"]["Tmpfs"].update({"/tmp": "rw"})),
    "writable mount": ("HostConfig.Mounts[0].ReadOnly", lambda c: c["HostConfig"]["Mounts"][0].update(ReadOnly=False)),
    "mount in effect": ("Mounts: /usr is missing or different", lambda c: c["Mounts"][0].update(RW=True)),
    "mount added": (
        "Mounts: /host was added",
        lambda c: c["Mounts"].append({"Type": "bind", "Source": "/", "Destination": "/host", "RW": True}),
    ),
    "root": ("Config.User is '0'", lambda c: c["Config"].update(User="0")),
    "proxy in the environment": ("Config.Env", lambda c: c["Config"]["Env"].append("HTTP_PROXY=http://user:key@p")),
    "command": ("Config.Entrypoint", lambda c: c["Config"].update(Entrypoint=["/bin/sh"])),
    "volume": ("Config.Volumes", lambda c: c["Config"].update(Volumes={"/data": {}})),
    "another runtime": ("HostConfig.Runtime", lambda c: c["HostConfig"].update(Runtime="other")),
    "something new that is not nothing": ("HostConfig.Novel", lambda c: c["HostConfig"].update(Novel={"a": [1]})),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_difference_is_named(name: str) -> None:
    field, change = CHANGES[name]
    found = made(CONFIG)
    change(found)
    lines = differences(CONFIG, found)
    assert len(lines) == 1
    assert field in lines[0]


def test_each_protection_can_be_taken_away_and_is_seen_by_the_comparison() -> None:
    of_the_program = {"landlock", "seccomp"}
    for protection in PROTECTIONS - of_the_program:
        weakened = container_config(dataclasses.replace(PLAN, without={protection}))
        assert differences(CONFIG, made(weakened)) or weakened["Env"] != CONFIG["Env"], protection


def test_a_protection_that_does_not_exist_cannot_be_taken_away() -> None:
    with pytest.raises(ValueError, match="secomp"):
        container_config(dataclasses.replace(PLAN, without={"secomp"}))


def test_the_hosts_environment_is_not_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARPLE_CANARY", "4711")
    assert not any("4711" in one for one in container_config(PLAN)["Env"])
    weakened = container_config(dataclasses.replace(PLAN, without={"env"}))
    assert "MARPLE_CANARY=4711" in weakened["Env"]
