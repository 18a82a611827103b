"""Its provider does not know its key."""

from importlib import import_module

from marple.errors import ModelError

entry = import_module("marple.agent.investigators.player").entry


def _refused() -> None:
    raise ModelError("HTTP 401 invalid_api_key: no such key", status=401)


INVESTIGATOR = entry("key-refused", _refused)
