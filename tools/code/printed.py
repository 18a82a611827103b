"""What a call prints: its beginning and its end, and how much there was in between."""

from __future__ import annotations

from marple.tools.code.caps import PRINTED_BYTES

__all__ = ["Printed"]


class Printed:
    """Collects bytes and keeps at most ``limit`` of them: the first half and the last half."""

    def __init__(self, limit: int = PRINTED_BYTES) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0
        """Bytes that were printed."""

    def add(self, data: bytes) -> None:
        """Take more."""
        self.total += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: -self._half]

    @property
    def left_out(self) -> int:
        """Bytes that were printed and are not kept."""
        return self.total - len(self._head) - len(self._tail)

    def text(self) -> str:
        """What is kept; a line says where something is left out. What is no UTF-8 is replaced."""
        if not self.left_out:
            return (self._head + self._tail).decode("utf-8", "replace")
        head, tail = self._head.decode("utf-8", "replace"), self._tail.decode("utf-8", "replace")
        return f"{head}\n[... {self.left_out:,} bytes left out ...]\n{tail}"
