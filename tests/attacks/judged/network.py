"""Ways out over the network and over sockets; the listeners' counts and greetings decide."""

from __future__ import annotations

import contextlib
import os
import socket

from tests.attacks.attack import attack
from tests.attacks.sandboxed import Arena, descriptors_of, until

_VSOCK = 40


def _reached(arena: Arena, listening: socket.socket | None, family: int, address: object) -> bool:
    if listening is None:
        return False
    listeners = arena.world.listeners
    before = listeners.count(listening)
    answer = arena.ask("network.connect", family=family, address=address)
    return listeners.greeting in str(answer) or until(lambda: listeners.count(listening) > before, 0.1)


@attack("connect to a listener of the host on 127.0.0.1")
def tcp_loopback(arena: Arena) -> bool:
    return _reached(arena, arena.world.tcp, socket.AF_INET, list(arena.world.tcp.getsockname()))


@attack("connect to listeners of the host on its own network address and on ::1")
def tcp_lan_v4_v6(arena: Arena) -> bool:
    there = [one for one in (arena.world.lan, arena.world.tcp6) if one is not None]
    return any([_reached(arena, one, one.family, list(one.getsockname())[:2]) for one in there])


@attack("send a packet to a UDP listener of the host, as a name lookup would")
def udp_dns(arena: Arena) -> bool:
    listeners, udp = arena.world.listeners, arena.world.udp
    before = listeners.count(udp)
    arena.ask("network.send_datagram", family=socket.AF_INET, address=list(udp.getsockname()))
    return until(lambda: listeners.count(udp) > before, 0.2)


@attack("read the addresses of the host's name servers")
def resolver_addresses(arena: Arena) -> bool:
    with open("/etc/resolv.conf", encoding="utf-8") as file:  # noqa: PTH123
        servers = [line.split()[1] for line in file if line.startswith("nameserver")]
    answer = str(arena.ask("network.resolver"))
    return any(server in answer for server in servers)


@attack("connect to a Unix socket that lies in the staged directory, which is read-only")
def unix_path_ro_bind(arena: Arena) -> bool:
    sandbox = arena.shared
    return _reached(arena, sandbox.root.socket, socket.AF_UNIX, f"{sandbox.here}/listening")


@attack("connect to an abstract Unix socket of the host")
def unix_abstract(arena: Arena) -> bool:
    name = arena.world.abstract.getsockname()
    return _reached(arena, arena.world.abstract, socket.AF_UNIX, name.decode())


@attack("make a socket to the hypervisor and other virtual machines (vsock)")
def vsock(arena: Arena) -> bool:
    return _socket_open(arena, [_VSOCK])


@attack("make a socket of any of the families 0 to 45: netlink, packet, crypto (AF_ALG), Bluetooth, RDS, ...")
def other_families(arena: Arena) -> bool:
    return _socket_open(arena, list(range(46)))


def _socket_open(arena: Arena, families: list[int]) -> bool:
    """Whether the kernel shows a socket among the descriptors of a process of the sandbox."""
    before = _sockets(arena)
    with arena.holding("network.make_sockets", families=families) as made:
        return bool(made) and _sockets(arena) > before


def _sockets(arena: Arena) -> int:
    return sum(one.startswith("socket:") for number in arena.shared.pids() for one in descriptors_of(number))


@attack("set up io_uring, which makes sockets past the system calls for them")
def io_uring_net(arena: Arena) -> bool:
    return str(arena.ask("network.io_uring")) == "ok"


@attack("use a file or a connection that the host had open when it started the sandbox")
def fd_socket_inherit(arena: Arena) -> bool:
    word = "through an inherited descriptor"
    found = str(arena.ask("network.inherited", most=1024, message=word))
    arrived = b""
    with contextlib.suppress(BlockingIOError):
        arrived = arena.world.near.recv(4096)
    return arena.world.file in found or word.encode() in arrived


@attack("connect to the container engine's socket, where it usually is and where it is here")
def docker_socket(arena: Arena) -> bool:
    usual = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"]
    told = os.environ.get("DOCKER_HOST", "").removeprefix("unix://")
    planted = str(arena.world.open / "docker.sock")
    before = arena.world.listeners.count(arena.world.daemon)
    answer = str(arena.ask("network.connect_any", paths=[*usual, planted, *([told] if told else [])]))
    return arena.world.listeners.count(arena.world.daemon) > before or "200 OK" in answer
