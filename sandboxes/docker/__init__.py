"""The ``docker`` backend: a container that is compared with what was asked for before it starts."""

from marple.sandboxes.docker.backend import BACKEND, PROTECTIONS, DockerBackend, DockerOptions

__all__ = ["BACKEND", "PROTECTIONS", "DockerBackend", "DockerOptions"]
