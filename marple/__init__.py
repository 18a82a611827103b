"""Marple: an automated interpretability agent.

Launch an investigation with ``marple run``, review it with ``marple show``. The packages, top to bottom:
``marple.cli``, ``marple.agent``, ``marple.tasks``, ``marple.traces`` and ``marple.sandboxes``, ``marple.tools``.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("marple")
