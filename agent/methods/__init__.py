"""How the scripted investigators play each kind of task, without a language model.

The method of a kind is one module, ``<kind>_blackbox.py`` or ``<kind>_whitebox.py``, that defines ``METHOD``, a
subclass of `Script`; it is found without a registry. A kind without a white-box method is played by its black-box one.
Methods are general: they never read organism names, recipes or truth.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Literal

from marple.agent.investigator import Script
from marple.errors import UsageError

__all__ = ["find_method"]


def find_method(kind: str, sort: Literal["blackbox", "whitebox"]) -> type[Script]:
    """The method for a kind of task.

    Raises:
        UsageError: there is none.
    """
    sorts = ("whitebox", "blackbox") if sort == "whitebox" else ("blackbox",)
    for each in sorts:
        name = f"{__name__}.{kind.replace('-', '_')}_{each}"
        if importlib.util.find_spec(name) is not None:
            method: type[Script] = importlib.import_module(name).METHOD
            return method
    raise UsageError(f"no scripted method plays the kind {kind!r}; play it with --investigator llm or prior")
