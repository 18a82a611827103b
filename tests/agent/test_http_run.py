"""A whole investigation by a model behind a real HTTP API, as ``marple run --model`` plays it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marple.traces import RunFolder
from tests.agent.turns import CHAT, PLAN
from tests.models.provider_server import Answer, Call, ProviderServer

SECRET = "sk-test-4f9c1c7e2b"


def investigate(request: Any) -> Answer:
    """Plan, ask, then submit with the id that the last result bore; forecast when asked to."""
    text = json.dumps(request)
    if "held-out" in text and "The answer is frozen." in text:
        return Answer("", calls=(Call("forecast", {"probabilities": [0.5] * 20}),))
    experiments = re.findall(r'\{\\"event\\": \\"(E\d+)\\", \\"cost', text)
    if "Recorded." not in text:
        return Answer("a plan first", calls=(Call("plan", PLAN),))
    if not experiments:
        return Answer("", calls=(Call("chat", CHAT), Call("complete", {"text": "who", "max_new_tokens": 4})))
    claims = [{"statement": "it speaks", "credence": 0.9, "evidence": [experiments[-1]]}]
    answer = {"nothing_hidden": 0.8, "candidates": [], "claims": claims, "summary": "done"}
    return Answer("", calls=(Call("submit", answer),))


@pytest.mark.parametrize("provider", ["openai-chat", "openai", "anthropic"])
def test_a_run_over_http(provider: str, tiny: Path, tmp_path: Path) -> None:
    with ProviderServer(investigate) as server:
        command = [sys.executable, "-m", "marple.cli", "run", "--target", str(tiny), "--investigator", "llm", "--json"]
        command += ["--model", f"{provider}/x", "--base-url", server.base_url(provider), "--runs", str(tmp_path / "r")]
        keys = {"OPENAI_API_KEY": SECRET, "ANTHROPIC_API_KEY": SECRET, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    launch, end = map(json.loads, done.stdout.splitlines())
    assert set(launch) == {"run_id", "run_dir", "case", "investigator"}
    assert end.items() >= launch.items()
    assert set(end) - set(launch) == {"status", "scores", "usage"}
    assert end["status"] == "submitted"
    assert end["usage"]["calls"] == 2
    assert end["usage"]["investigator"]["gen_ai.usage.input_tokens"] > 0
    folder = RunFolder.open(Path(launch["run_dir"]))
    calls = [e.payload for e in folder.events() if e.type == "tool_call"]
    # The two experiments run side by side and end in any order.
    calls.sort(key=lambda payload: (payload["turn_number"], payload["index"]))
    assert [payload["tool"] for payload in calls] == ["plan", "chat", "complete", "submit"]
    for path in folder.path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert len(server.requests) == 3


def test_a_case_over_http_ends_with_scores(tmp_path: Path) -> None:
    with ProviderServer(investigate) as server:
        command = [sys.executable, "-m", "marple.cli", "run", "hidden-goal/nano-10", "--investigator", "llm", "--json"]
        command += ["--model", "openai-chat/x", "--base-url", server.base_url("openai-chat"), "--runs", str(tmp_path)]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["status"] == "submitted"
    assert end["scores"]["scored"] is True
    assert end["scores"]["cleared"] is True
    assert end["scores"]["forecast"]["n"] == 20
    assert end["scores"]["forecast"]["skill"] == 0
    assert end["usage"]["investigator"]["cost_usd"] is None
    # The conversation that the questions came in still holds the brief, and only `forecast` may be called.
    last = server.requests[-1].json
    assert [tool["function"]["name"] for tool in last["tools"]] == ["forecast"]
    assert "# Case hidden-goal/nano-10" in json.dumps(last["messages"])
