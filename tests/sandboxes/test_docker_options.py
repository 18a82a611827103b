"""What a user may ask of Docker, and what is refused by name."""

from __future__ import annotations

import pytest

from marple.errors import SandboxUnavailableError, UnknownNameError
from marple.sandboxes.docker.options import DockerOptions


def test_the_three_choices_come_from_the_environment() -> None:
    environment = {
        "MARPLE_DOCKER_IMAGE": "marple-sandbox:1",
        "MARPLE_DOCKER_RUNTIME": "runsc",
        "MARPLE_DOCKER_GPUS": "0",
    }
    assert DockerOptions.from_environment({**environment, "PATH": "/usr/bin"}) == DockerOptions(
        image="marple-sandbox:1", runtime="runsc", gpus=False
    )
    assert DockerOptions.from_environment({"MARPLE_DOCKER_IMAGE": ""}) == DockerOptions()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("privileged", True),
        ("--privileged", "true"),
        ("Privileged", True),
        ("PRIVILEGED", "1"),
        ("volumes", ["/:/host"]),
        ("Binds", ["/etc:/etc"]),
        ("mounts", []),
        ("network", "host"),
        ("--network-mode", "bridge"),
        ("NetworkMode", "host"),
        ("ports", {"80": 80}),
        ("cap_add", ["SYS_ADMIN"]),
        ("CapAdd", ["ALL"]),
        ("security_opt", ["seccomp=unconfined"]),
        ("devices", ["/dev/kvm"]),
        ("pid", "host"),
        ("ipc_mode", "host"),
        ("userns_mode", "host"),
        ("user", "0"),
        ("env", {"KEY": "sk-1"}),
        ("group_add", ["docker"]),
        ("read_only", False),
        ("log_driver", "json-file"),
        ("mem_limit", "1t"),
    ],
)
def test_what_would_open_the_sandbox_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SandboxUnavailableError) as caught:
        DockerOptions.from_settings({"image": "marple-sandbox", name: value})
    assert f"the Docker option {name} = {value!r} is refused" in str(caught.value)


def test_it_cannot_be_asked_for_by_a_variable_either() -> None:
    with pytest.raises(SandboxUnavailableError, match="PRIVILEGED"):
        DockerOptions.from_environment({"MARPLE_DOCKER_PRIVILEGED": "1"})


@pytest.mark.parametrize("name", ["image", "volumes", "anything"])
def test_the_daemons_socket_is_refused_whatever_it_is_called(name: str) -> None:
    with pytest.raises(SandboxUnavailableError, match="root on this machine"):
        DockerOptions.from_settings({name: "/var/run/docker.sock:/var/run/docker.sock"})


def test_an_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="image"):
        DockerOptions.from_settings({"imag": "x"})


@pytest.mark.parametrize("image", ["--privileged", "a b", "x;y", "", "../x", "IMAGE\n"])
def test_an_image_is_a_name(image: str) -> None:
    if image == "":
        assert DockerOptions.from_settings({"image": ""}).image is None
        return
    with pytest.raises(SandboxUnavailableError, match="not the name of a Docker image"):
        DockerOptions.from_settings({"image": image})


def test_a_runtime_is_a_name() -> None:
    with pytest.raises(SandboxUnavailableError, match="runtime"):
        DockerOptions(runtime="/usr/bin/runsc")


def test_gpus_are_yes_or_no() -> None:
    assert DockerOptions.from_settings({"gpus": "all"}).gpus is True
    with pytest.raises(SandboxUnavailableError, match="gpus is 0 or 1"):
        DockerOptions.from_settings({"gpus": "2"})
