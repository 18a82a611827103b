"""Images: one of empty directories, made here, or one that the user built from the Dockerfile beside this module."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.errors import SandboxError, SandboxUnavailableError
from marple.sandboxes.docker.daemon import asking

__all__ = ["DOCKERFILE", "PYTHON_LABEL", "Image", "skeleton", "skeleton_image", "user_image"]

DOCKERFILE = Path(__file__).parent / "Dockerfile"
PYTHON_LABEL = "marple.python"
"""Label that says where Python is in an image built from the Dockerfile."""

_FOLDERS = (
    "dev",
    "etc",
    "proc",
    "python",
    "sbin",
    "sbx",
    "sbx/code",
    "sbx/inside",
    "sbx/root",
    "sbx/site",
    "sys",
    "usr",
)
_FILES = {
    "etc/group": "sbx:x:65532:\n",
    "etc/hostname": "",
    "etc/hosts": "",
    "etc/passwd": "sbx:x:65532:65532::/tmp:/bin/false\n",
    "etc/resolv.conf": "",
}
# Docker puts its init into /sbin, where a link into the host's /usr would hide it.
_SYSTEM_FOLDERS = ("bin", "lib", "lib32", "lib64", "libx32")
_ENVIRONMENT = frozenset({"PATH", "LANG", "LC_ALL", "GPG_KEY", "PYTHONDONTWRITEBYTECODE"})
_ENVIRONMENT_PREFIX = "PYTHON_"


@dataclass(frozen=True)
class Image:
    """An image that is there and was looked at."""

    identity: str
    """Its id, ``sha256:...``; names can be moved to another image, this cannot."""
    name: str
    python: str | None = None
    """Path of the interpreter in it; None for an image of empty directories."""
    environment: tuple[str, ...] = ()
    """``NAME=value`` that it brings."""
    labels: Mapping[str, str] | None = None


def skeleton(system: Path = Path("/")) -> bytes:
    """A tar archive of empty directories, links as on this machine and a list of one user; always the same bytes.

    Args:
        system: the root of this machine's file tree.

    Raises:
        SandboxUnavailableError: this machine's programs are not all below ``/usr``.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in _FOLDERS:
            archive.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
        archive.addfile(_entry("tmp", tarfile.DIRTYPE, 0o1777))
        for name, text in _FILES.items():
            entry = _entry(name, tarfile.REGTYPE, 0o444)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode("ascii")))
        for name, target in _links(system).items():
            entry = _entry(name, tarfile.SYMTYPE, 0o777)
            entry.linkname = target
            archive.addfile(entry)
    return buffer.getvalue()


def skeleton_image(client: Any) -> Image:
    """The image of empty directories, brought to the daemon where it is not there yet.

    Raises:
        SandboxUnavailableError: this machine's programs cannot be shown in it, or the name is taken by another image.
        SandboxError: the daemon does not take it.
    """
    archive = skeleton()
    digest = hashlib.sha256(archive).hexdigest()
    repository, tag = "marple-skeleton", digest[:16]
    name = f"{repository}:{tag}"
    found = _inspect(client, name)
    if found is None:
        with asking("importing the image of empty directories"):
            client.import_image_from_data(archive, repository=repository, tag=tag)
        found = _inspect(client, name)
    if found is None:
        raise SandboxError(f"Docker: the image {name} was imported and is not there")
    # The layer's digest is that of the archive, so this also sees an image that someone else gave this name.
    if found["RootFS"].get("Layers") != [f"sha256:{digest}"] or found["Config"].get("Env"):
        raise SandboxUnavailableError(f"the Docker image {name} is not what Marple made; remove it: docker rmi {name}")
    return Image(found["Id"], name)


def user_image(client: Any, name: str) -> Image:
    """An image that the user built from the Dockerfile; nothing is ever pulled.

    Raises:
        SandboxUnavailableError: it is not there, was not built from the Dockerfile, or holds what it must not.
    """
    found = _inspect(client, name)
    if found is None:
        raise SandboxUnavailableError(
            f"there is no Docker image {name}; build it in Marple's repository: "
            f"docker build --tag {name} --file sandboxes/docker/Dockerfile ."
        )
    config = found["Config"]
    python = (config.get("Labels") or {}).get(PYTHON_LABEL)
    if not python:
        raise SandboxUnavailableError(
            f"the Docker image {name} has no label {PYTHON_LABEL}: it was not built from {DOCKERFILE}"
        )
    if config.get("Volumes"):
        raise SandboxUnavailableError(f"the Docker image {name} declares volumes, which would be writable: rebuild it")
    environment = tuple(config.get("Env") or ())
    names = [one.partition("=")[0] for one in environment]
    unknown = [one for one in names if one not in _ENVIRONMENT and not one.startswith(_ENVIRONMENT_PREFIX)]
    if unknown:
        raise SandboxUnavailableError(
            f"the Docker image {name} sets the variables {', '.join(unknown)}, which code inside could read: rebuild it"
        )
    return Image(found["Id"], name, python, environment, config.get("Labels") or {})


def _inspect(client: Any, name: str) -> Any:
    try:
        with asking(f"looking at the image {name}"):
            return client.inspect_image(name)
    except SandboxError as error:
        if getattr(getattr(error.__cause__, "response", None), "status_code", 0) == 404:
            return None
        raise


def _links(system: Path) -> dict[str, str]:
    """Links such as ``lib`` to ``usr/lib``, as this machine has them."""
    links = {}
    for name in _SYSTEM_FOLDERS:
        path = system / name
        if not path.is_symlink():
            if path.exists():
                raise SandboxUnavailableError(
                    f"{path} is no link into /usr, so this machine's programs cannot be shown in a container; build an "
                    f"image from {DOCKERFILE} and name it in MARPLE_DOCKER_IMAGE"
                )
            continue
        target = str(path.readlink()).removeprefix("/")
        if not target.startswith("usr/"):
            raise SandboxUnavailableError(f"{path} leads to {target}, not into /usr; set MARPLE_DOCKER_IMAGE")
        links[name] = target
    return links


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry
