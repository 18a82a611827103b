"""A host process of its own: starts a sandbox, begins one attack in it, and stays until it is killed or told to end."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from pathlib import Path

from marple.errors import SandboxUnavailableError
from marple.sandboxes.backend import Backend, Program
from marple.tools import wire
from tests.attacks.mutations import weaken
from tests.attacks.sandboxed import LIMITS
from tests.attacks.unconfined import CarelessBubblewrap, Unconfined


def named(name: str, without: str) -> Backend:
    """A backend of the package or of the tests, with protections taken away."""
    tests = {one.name: one for one in (Unconfined(), CarelessBubblewrap())}
    if name in tests:
        return tests[name]
    found = importlib.import_module(f"marple.sandboxes.{name}").BACKEND
    backend: Backend = weaken(found, without.split(",")) if without else found
    return backend


async def main(name: str, without: str, root: Path, function: str, *arguments: str) -> None:
    """Start, ask, and wait for ever, or with an argument for the answer."""
    backend = named(name, without)
    program = Program("attack", script=root / "attacks" / "runner.py")
    try:
        launched = await backend.launch(root, LIMITS, program)
    except SandboxUnavailableError as error:
        print("refused", error, flush=True)
        return
    given = {"word": arguments[0]} if any(arguments) else {}
    # An answer to the first request says that the runner has its name.
    for identifier, wanted, values in (("1", "release", {}), ("2", function, given)):
        request = {"id": identifier, "function": wanted, "hold": False, "here": not arguments, "arguments": values}
        launched.send(wire.encode_frame(request))
    await _answer(launched.replies)
    print("started", json.dumps(dict(launched.stamp)), flush=True)
    if not arguments:
        await asyncio.sleep(600)
    await _answer(launched.replies)
    launched.kill()
    await launched.wait()
    launched.close()
    print("ended", flush=True)


async def _answer(replies: asyncio.StreamReader) -> None:
    length = int.from_bytes(await replies.readexactly(4), "big")
    await replies.readexactly(length)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]))
