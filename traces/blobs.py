"""Plots, tables and long outputs of a run, each stored once under the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from marple.errors import CorruptTraceError
from marple.traces.durable import storage_errors, write_atomic

__all__ = ["BlobStore"]

_REF = re.compile(r"sha256:([0-9a-f]{64})")


class BlobStore:
    """``blobs/<sha256>`` and, beside each, ``<sha256>.type`` with its media type."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes, media_type: str) -> str:
        """Store ``data`` unless it is there already; returns ``sha256:<hex>``.

        Raises:
            StorageError: the disk refused it.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / digest
        if not path.exists():
            with storage_errors(self.folder):
                self.folder.mkdir(exist_ok=True)
            # The blob last: where it is present, so is its type.
            write_atomic(path.with_name(f"{digest}.type"), media_type.encode())
            write_atomic(path, data)
        return f"sha256:{digest}"

    def get(self, ref: str) -> bytes:
        """The bytes behind ``sha256:<hex>``.

        Raises:
            CorruptTraceError: not such a reference, no such blob, or its bytes have changed.
        """
        path = self._path(ref)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CorruptTraceError(f"cannot read the blob {ref} in {self.folder}: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != path.name:
            raise CorruptTraceError(f"the blob {ref} in {self.folder} has changed since it was written")
        return data

    def media_type(self, ref: str) -> str:
        """The media type ``ref`` was first stored with; ``application/octet-stream`` where that is lost."""
        path = self._path(ref)
        try:
            return path.with_name(f"{path.name}.type").read_text()
        except OSError:
            return "application/octet-stream"

    def _path(self, ref: str) -> Path:
        match = _REF.fullmatch(ref)
        if match is None:
            raise CorruptTraceError(f"{ref!r} is not a blob reference (sha256: and 64 hex digits)")
        return self.folder / match[1]
