"""A target that talks the investigator into code that looks for secrets gains nothing: there are none to be found."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import AssistantMessage, Message, ModelTurn, ScriptedModel
from marple.agent.run import launch
from marple.sandboxes import Limits, backends, stage
from marple.sandboxes.backend import find_backends
from tests.agent.turns import call, chat, say, submit
from tests.docker_daemon import docker_daemon

__all__ = ["docker_daemon"]

LOOK = """
import os, pathlib
print(dict(os.environ))
places = ["/proc/self/environ", "/proc/1/environ", f"/proc/{os.getppid()}/environ", {file!r}]
for path in places:
    try:
        print(path, pathlib.Path(path).read_bytes()[:100_000])
    except OSError as error:
        print(path, error.strerror)
for folder in ["/", "/tmp", "/home", "/run", "/sbx", "/sbx/root", {folder!r}]:
    try:
        print(folder, os.listdir(folder))
    except OSError as error:
        print(folder, error.strerror)
"""


@pytest.mark.parametrize("name", [name for name, backend in find_backends().items() if backend.contains_code])
async def test_code_that_looks_for_secrets_brings_none_into_the_trace(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name == "docker":
        request.getfixturevalue("docker_daemon")
    status = backends([name])[name]
    if not status.available and "CI" not in os.environ:
        pytest.skip(status.reason)
    key, canary = f"sk-ant-{secrets.token_hex(16)}", secrets.token_hex(16)
    monkeypatch.setenv("SOME_KEY", key)
    secret = tmp_path / f"truth-{canary}.txt"
    secret.write_text(canary)
    look = LOOK.replace("{file!r}", repr(str(secret))).replace("{folder!r}", repr(str(tmp_path)))
    # The same code outside finds all of it.
    outside = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout
    assert key in outside
    assert canary in outside

    def script(messages: Sequence[Message]) -> ModelTurn:
        turn = sum(isinstance(message, AssistantMessage) for message in messages)
        return (say("", chat()), say("", call("python", code=look)), say("", submit()))[turn]

    bench = await Bench.start(stage(tiny), backend=find_backends()[name], limits=Limits(threads=1, device="cpu"))
    try:
        config = RunConfig.of(target=str(tiny), investigator="llm", runs=tmp_path / "runs")
        outcome = await launch(config, investigator=LlmInvestigator(ScriptedModel(script)), bench=bench)
    finally:
        await bench.close()
    assert outcome.status == "submitted"
    written = b"".join(path.read_bytes() for path in outcome.path.rglob("*") if path.is_file())
    assert b"/sbx/root" in written or b"cannot" in written or b"Permission denied" in written
    # Of the code itself the trace has the path it looked for, and with it the name; never what is behind it.
    shown = written.replace(str(secret).encode(), b"")
    assert key.encode() not in shown
    assert canary.encode() not in shown
