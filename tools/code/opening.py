"""Load a target for code: confinement first, then the model, then what every copy would import again.

Importing this module imports neither torch nor numpy: both start threads of their own unless the environment, which is
set where the target is loaded, tells them not to; and a process with several threads cannot be copied.
"""

from __future__ import annotations

import dataclasses
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.tools import messages
from marple.tools.code.confinement import open_confinement
from marple.tools.code.tool import python_spec
from marple.tools.serving import load

if TYPE_CHECKING:
    from marple.tools.code.workshop import Workshop

__all__ = ["open_workshop"]

_ACCELERATOR = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", *(f"/dev/nvidia{n}" for n in range(16)))


def open_workshop(root: Path, config: messages.WorkerConfig, inside: Path) -> Workshop:
    """Load the target and make sure that code can be confined.

    Args:
        root: the staged directory.
        config: what to load; plugins and the corpus are not for code.
        inside: the directory with the scripts that confine processes.

    Raises:
        Unconfined: it cannot; nothing was loaded.
        TargetRefusedError: the target cannot be loaded.
    """
    confinement = open_confinement(inside)
    device = _device(config.device)
    # On an accelerator the copies have the model, not this process: its driver does not survive a fork.
    own: dict[str, Any] = {"threads": 1, "plugins": [], "corpus": None, "device": "cpu"}
    if device != "cpu":
        confinement = open_confinement(inside, devices=_ACCELERATOR)
        own["dtype"] = config.dtype or "auto"
    served = load(root, config.model_copy(update=own))
    spec = python_spec()
    served = dataclasses.replace(served, tools={spec.name: spec}, known={spec.name: spec})
    _warm_up()
    from marple.tools.code.workshop import Workshop

    return Workshop(served, device, confinement)


def _device(name: str) -> str:
    """The device the code's copies use, found out in a process of its own: to ask is to initialise the driver."""
    if name in ("cpu", "mps"):
        # Metal does not survive a fork.
        return "cpu"
    asked = os.fork()
    if asked == 0:
        status = 1
        try:
            import torch

            status = 0 if torch.cuda.is_available() else 1
        finally:
            os._exit(status)
    there = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1]) == 0
    return ("cuda" if name == "auto" else name) if there else "cpu"


def _warm_up() -> None:
    """Import here what every copy would import again, and let matplotlib look for its fonts once."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.close(plt.figure())
    gc.collect()
    gc.freeze()
