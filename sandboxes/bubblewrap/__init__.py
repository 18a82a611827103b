"""The ``bubblewrap`` backend: a file tree, processes and a network of its own, without any privilege."""

from marple.sandboxes.bubblewrap.backend import BACKEND, PROTECTIONS, BubblewrapBackend

__all__ = ["BACKEND", "PROTECTIONS", "BubblewrapBackend"]
