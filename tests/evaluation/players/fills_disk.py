"""The disk is full for as long as the file is there that MARPLE_TEST_FULL names."""

import os
from importlib import import_module
from pathlib import Path

from marple.errors import StorageError

entry = import_module("marple.agent.investigators.player").entry


def _full() -> None:
    if Path(os.environ["MARPLE_TEST_FULL"]).exists():
        raise StorageError("cannot write events.jsonl: no space left on device")


INVESTIGATOR = entry("fills-disk", _full)
