"""Plots and long outputs: stored once, whole or not at all, and checked on reading."""

from __future__ import annotations

import hashlib

import pytest

from marple.errors import CorruptTraceError
from marple.traces import RunFolder


def test_a_blob_is_stored_once_under_its_digest(run: RunFolder) -> None:
    data = b"\x89PNG" * 100
    ref = run.put_blob(data, "image/png")
    stored = run.path / "blobs" / hashlib.sha256(data).hexdigest()
    before = stored.stat()

    assert ref == f"sha256:{stored.name}"
    assert run.put_blob(data, "image/png") == ref
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert stored.read_bytes() == RunFolder.open(run.path).get_blob(ref) == data
    assert RunFolder.open(run.path).blob_type(ref) == "image/png"


def test_different_bytes_are_kept_apart(run: RunFolder) -> None:
    refs = [run.put_blob(bytes([n]) * n, "application/octet-stream") for n in range(5)]
    assert len(set(refs)) == 5
    assert [run.get_blob(ref) for ref in refs] == [bytes([n]) * n for n in range(5)]


def test_changed_bytes_are_noticed(run: RunFolder) -> None:
    ref = run.put_blob(b"evidence", "text/plain")
    (run.path / "blobs" / ref.removeprefix("sha256:")).write_bytes(b"forgery!")
    with pytest.raises(CorruptTraceError, match="has changed"):
        run.get_blob(ref)


@pytest.mark.parametrize("ref", ["", "sha256:", "sha256:../../run.json", "sha256:" + "A" * 64, "md5:" + "0" * 64])
def test_only_a_digest_is_a_reference(run: RunFolder, ref: str) -> None:
    with pytest.raises(CorruptTraceError, match="not a blob reference"):
        run.get_blob(ref)


def test_a_missing_blob_is_named(run: RunFolder) -> None:
    with pytest.raises(CorruptTraceError, match="cannot read the blob sha256:0000.*No such file"):
        run.get_blob("sha256:" + "0" * 64)
