"""Ways to leave something behind for the next sandbox; the next sandbox and the host look for it."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.attack import attack
from tests.attacks.sandboxed import Arena
from tests.attacks.world import canary, forget_shared_memory, shared_memory_key

_TMP = ["/tmp", "/dev/shm", "/var/tmp"]  # noqa: S108 - where sandboxes leave things


@attack("leave a word for the next sandbox: in temporary files, shared memory, the staged directory, a keyring")
def persist_between_runs(arena: Arena) -> bool:
    word, name = canary("left"), canary("name")
    with arena.fresh() as first:
        key = shared_memory_key(first.root.token)
        folders = [*_TMP, first.here, f"{first.here}/target", f"{first.here}/cache", "/sbx/code"]
        first.ask("state.leave", word=word, name=name, folders=folders, key=key)
    with arena.fresh() as second:
        answer = second.ask("state.find", name=name, folders=folders, key=key, size=len(word))
    forget_shared_memory(key)
    left = [Path(folder) / name for folder in (*_TMP, str(first.root.path))]
    on_host = any(path.exists() for path in left)
    for path in left:
        path.unlink(missing_ok=True)
    return word in str(answer) or on_host
