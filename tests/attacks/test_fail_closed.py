"""On a system that lacks a protection a backend refuses to start, or says in its stamp that it is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marple.sandboxes.backend import find_backends
from tests.attacks.world import World

_REPOSITORY = Path(__file__).parents[2]


def start_without(world: World, backend: str, lacking: str | None) -> tuple[str, Any]:
    """``refused`` and the reason, or ``started`` and the stamp."""
    if not (status := find_backends()[backend].probe()).available:
        pytest.skip(status.reason)
    outer = [sys.executable, "-m", "tests.attacks.outer", lacking] if lacking else []
    starting = [
        sys.executable,
        "-m",
        "tests.attacks.starter",
        backend,
        "",
        str(world.root().path),
        "reading.identity",
        "",
    ]
    done = subprocess.run([*outer, *starting], capture_output=True, text=True, timeout=60, cwd=_REPOSITORY, check=False)
    word, _, rest = done.stdout.partition("\n")[0].partition(" ")
    assert word in ("refused", "started"), done.stderr[-2000:]
    return word, rest if word == "refused" else json.loads(rest)


@pytest.mark.parametrize("backend", ["process", "bubblewrap"])
def test_it_starts_where_nothing_is_lacking(backend: str, world: World) -> None:
    word, stamp = start_without(world, backend, None)
    assert (word, stamp["seccomp"], stamp["landlock"] > 0) == ("started", "allow-list", True)


@pytest.mark.parametrize("backend", ["process", "bubblewrap"])
def test_a_kernel_without_filters_of_system_calls(backend: str, world: World) -> None:
    word, told = start_without(world, backend, "filters")
    if word == "started":
        assert backend == "process"
        assert (told["seccomp"], told["isolation"]) == ("none", "reduced")


@pytest.mark.parametrize("backend", ["process", "bubblewrap"])
def test_a_kernel_without_landlock(backend: str, world: World) -> None:
    word, told = start_without(world, backend, "landlock_create_ruleset")
    if word == "started":
        assert told["landlock"] == 0
        assert told["filesystem"] != "landlock"


def test_a_system_that_lets_nobody_make_namespaces(world: World) -> None:
    word, told = start_without(world, "bubblewrap", "namespaces")
    assert word == "refused"
    assert "unshare" in told
