"""Raises what nobody expects."""

from importlib import import_module

entry = import_module("marple.agent.investigators.player").entry


def _crash() -> None:
    raise ZeroDivisionError("crashed on purpose")


INVESTIGATOR = entry("crashes", _crash)
