"""Marple: an automated interpretability agent.

Launch an investigation with ``marple run``, review it with ``marple show``. The packages, top to bottom:
``marple.cli``, ``marple.agent``, ``marple.tasks``, ``marple.traces`` and ``marple.sandboxes``, ``marple.tools``.
"""

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    # Asked for when wanted: inside a sandbox the package has no metadata.
    if name == "__version__":
        from importlib.metadata import version

        return version("marple")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
