"""The ``docker`` backend: a container without network, privileges or anything to write to but temporary files.

It is taken only when it is asked for: whoever can use the daemon's socket is root on the machine, so that it is there
is no reason to use it. What may be chosen stands in ``DockerOptions`` and in the environment variables
``MARPLE_DOCKER_IMAGE``, ``MARPLE_DOCKER_RUNTIME`` (``runsc`` for gVisor) and ``MARPLE_DOCKER_GPUS``.

The daemon binds the staged directory as root, so a private directory above it is no obstacle, for an ordinary user in
the group ``docker`` neither. Rootless Docker has to reach it as its own user, which is the user that staged it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.errors import SandboxError, SandboxUnavailableError
from marple.sandboxes.backend import TOOL_WORKER, BackendStatus, Limits, Program
from marple.sandboxes.docker.command import Wanted
from marple.sandboxes.docker.config import PROTECTIONS, Plan, container_config
from marple.sandboxes.docker.config import differences as config_differences
from marple.sandboxes.docker.container import DockerContainer, visible_pid
from marple.sandboxes.docker.daemon import Daemon, asking, find_daemon, problems, warnings
from marple.sandboxes.docker.images import skeleton, skeleton_image, user_image
from marple.sandboxes.docker.options import DockerOptions
from marple.sandboxes.docker.owner import labels, remove, sweep
from marple.sandboxes.docker.stamp import make_stamp
from marple.sandboxes.inside import seccomp
from marple.sandboxes.installation import find_installation
from marple.sandboxes.scratch import Scratch, claim_scratch

__all__ = ["BACKEND", "PROTECTIONS", "DockerBackend", "DockerOptions"]


@dataclass(frozen=True)
class DockerBackend:
    """Starts the worker in a hardened container."""

    options: DockerOptions | None = None
    """None reads the environment variables."""
    without: frozenset[str] = frozenset()
    """Protections of ``PROTECTIONS`` that are left away, to show in a test what each of them prevents."""
    name: str = "docker"
    preference: int = 0
    contains_code: bool = True

    def __post_init__(self) -> None:
        if self.without - PROTECTIONS:
            raise ValueError(f"no such protections: {sorted(self.without - PROTECTIONS)}")

    def probe(self) -> BackendStatus:
        """Whether there is a daemon that can enforce everything; starts nothing."""
        try:
            options = self._options()
            daemon = _usable_daemon(options)
            if options.image is None:
                skeleton()
            with contextlib.closing(daemon.client()) as client:
                if options.image is not None:
                    user_image(client, options.image)
        except SandboxError as error:
            return BackendStatus(self.name, available=False, reason=str(error))
        found = warnings(daemon)
        return BackendStatus(self.name, available=True, reason="; ".join(found), stamp={"versions": daemon.versions})

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> DockerContainer:
        """Make a container, compare it with what was asked for, attach to it, start it and look at it from outside."""
        making = asyncio.ensure_future(asyncio.to_thread(self._make, root, limits, program))
        try:
            made = await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_discard)
            raise
        launched = DockerContainer(made.daemon, made.container, made.scratch, made.plan.memory)
        try:
            with contextlib.closing(made.daemon.client()) as client:
                await launched.attach()
                state = await asyncio.to_thread(_start, client, made.container)
            launched.started(visible_pid(state["Pid"], made.container))
            launched.stamp = await asyncio.to_thread(make_stamp, made.daemon, made.plan, launched.pid)
        except BaseException:
            launched.kill()
            launched.close()
            raise
        return launched

    def _options(self) -> DockerOptions:
        return DockerOptions.from_environment() if self.options is None else self.options

    def _make(self, root: Path, limits: Limits, program: Program) -> _Made:
        options = self._options()
        daemon = _usable_daemon(options)
        scratch = claim_scratch()
        try:
            with contextlib.closing(daemon.client()) as client:
                sweep(client)
                image = skeleton_image(client) if options.image is None else user_image(client, options.image)
                runtime = options.runtime or str(daemon.info.get("DefaultRuntime", "runc"))
                wanted = Wanted(
                    root,
                    limits,
                    program,
                    find_installation(),
                    image,
                    gpus=_gpus(options, limits, daemon),
                    own_kernel=any(one in runtime for one in _OWN_KERNEL),
                    without=self.without,
                )
                wanted.check(daemon.socket)
                plan = self._plan(daemon, wanted, scratch, runtime)
                return _Made(daemon, _create(client, plan), scratch, plan)
        except BaseException:
            scratch.remove()
            raise

    def _plan(self, daemon: Daemon, wanted: Wanted, scratch: Scratch, runtime: str) -> Plan:
        limits, image = wanted.limits, wanted.image
        empty, nothing = scratch.path / "empty", scratch.path / "nothing"
        empty.mkdir(mode=0o555)
        nothing.touch(mode=0o444)
        return Plan(
            image=image.identity,
            image_environment=image.environment,
            image_labels=image.labels,
            command=wanted.command,
            environment=wanted.environment,
            mounts=wanted.mounts,
            hidden=wanted.hidden,
            nothing=nothing,
            empty=empty,
            memory=_memory(limits, daemon),
            processes=limits.processes,
            descriptors=limits.descriptors,
            file_bytes=limits.file_mib * 2**20,
            scratch_bytes=limits.scratch_mib * 2**20,
            seccomp=json.dumps(seccomp.docker_profile()),
            labels=labels(),
            runtime=runtime,
            cache=wanted.cache,
            gpus=wanted.gpus,
            limits_swap=bool(daemon.info.get("SwapLimit")),
            landlock=wanted.landlock,
            own_kernel=wanted.own_kernel,
            weaker=wanted.weaker,
            without=self.without,
        )


BACKEND = DockerBackend()

_OWN_KERNEL = ("kata", "runsc")


@dataclass(frozen=True)
class _Made:
    """A container that was created and found to be what was asked for."""

    daemon: Daemon
    container: str
    scratch: Scratch
    plan: Plan = field(repr=False)


def _usable_daemon(options: DockerOptions) -> Daemon:
    daemon = find_daemon()
    lacking = problems(daemon.info)
    if lacking:
        raise SandboxUnavailableError(f"the Docker daemon at {daemon.url} cannot be used: {'; '.join(lacking)}")
    if options.runtime is not None and options.runtime not in daemon.runtimes:
        raise SandboxUnavailableError(
            f"the Docker daemon has no runtime {options.runtime!r} (it has: {', '.join(daemon.runtimes)}); install it "
            "and name it in /etc/docker/daemon.json, for gVisor with 'runsc install', then restart the daemon"
        )
    if options.gpus and not daemon.has_gpus:
        raise SandboxUnavailableError(_NO_GPUS)
    return daemon


_NO_GPUS = (
    "the Docker daemon cannot hand in GPUs: install the Nvidia container toolkit, run "
    "'nvidia-ctk runtime configure --runtime=docker' and restart the daemon, or ask for the device cpu"
)


def _gpus(options: DockerOptions, limits: Limits, daemon: Daemon) -> bool:
    if options.gpus is False or limits.device not in ("auto", "cuda"):
        return False
    if limits.device == "cuda" and not daemon.has_gpus:
        raise SandboxUnavailableError(_NO_GPUS)
    return daemon.has_gpus


def _memory(limits: Limits, daemon: Daemon) -> int:
    if limits.memory_gib is None:
        return int(daemon.info["MemTotal"]) * 3 // 4
    return int(limits.memory_gib * 2**30)


def _create(client: Any, plan: Plan) -> str:
    config = container_config(plan)
    with asking("creating the container"):
        container: str = client.create_container_from_config(config)["Id"]
    try:
        with asking("looking at the container"):
            found = client.inspect_container(container)
        different = config_differences(config, found)
        if different:
            raise SandboxUnavailableError(
                f"Docker made another container than was asked for, it is not started: {'; '.join(different[:5])}"
            )
    except BaseException:
        with contextlib.suppress(SandboxError):
            remove(client, container)
        raise
    return container


def _start(client: Any, container: str) -> Mapping[str, Any]:
    with asking("starting the container"):
        client.start(container)
        found: Mapping[str, Any] = client.inspect_container(container)["State"]
    return found


def _discard(making: asyncio.Future[_Made]) -> None:
    """Remove a container whose launch was cancelled while it was being made."""
    if not making.cancelled() and making.exception() is None:
        made = making.result()
        launched = DockerContainer(made.daemon, made.container, made.scratch, made.plan.memory)
        launched.kill()
