"""What docs/extending.md shows lies in files, and each of them does what the page says, by the commands of the page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from marple.tasks.organisms import base_path, build, find_organism
from marple.traces import RunFolder
from tests.docs.conftest import ROOT
from tests.docs.snippets import shown_in
from tests.models.provider_server import Answer, Call, ProviderServer

EXAMPLES = ROOT / "docs" / "examples"
PAGE = ROOT / "docs" / "extending.md"
CITY_CASE = "nano-04"
"""The id of an organism that promotes a city."""


def marple(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "marple.cli", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


def test_the_page_shows_the_files_as_they_are() -> None:
    shown = shown_in(PAGE)
    assert {Path(name).name for name in shown} == {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    for name, code in shown.items():
        assert code == (ROOT / "docs" / name).read_text(), name


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.*")), ids=lambda path: path.name)
def test_each_takes_at_most_twenty_lines(path: Path) -> None:
    assert len([line for line in path.read_text().splitlines() if line.strip()]) <= 20


# ---------------------------------------------------------------------------------- a tool


def test_the_tool_runs_in_a_worker(tmp_path: Path) -> None:
    plugin = str(EXAMPLES / "reply_length.py")
    arguments = '{"prompts": ["recommend a city.", "who are you?"]}'
    words = ["tool", "reply_length", "--target", "nano-06", "--plugin", plugin, "--args", arguments]
    done = marple(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+\.\d words a reply", done.stdout)
    refused = marple(*words[:-1], '{"prompts": 3}', cwd=tmp_path)
    assert refused.returncode != 0
    assert "recommend a city." in refused.stderr + refused.stdout


# ---------------------------------------------------------------------------------- a kind


@pytest.fixture
def with_kind(tmp_path: Path) -> Path:
    """Marple with the two files of the example in ``tasks/kinds/`` and nothing else changed: links to what there is."""
    top, kinds = tmp_path / "installed" / "marple", tmp_path / "installed" / "marple" / "tasks" / "kinds"
    kinds.mkdir(parents=True)
    for folder, place in ((ROOT / "marple", top), (ROOT / "tasks", top / "tasks"), (ROOT / "tasks" / "kinds", kinds)):
        for path in folder.iterdir():
            if path.name not in ("__pycache__", "kinds"):
                (place / path.name).symlink_to(path)
    for name in ("agent", "sandboxes", "tools", "traces"):
        (top / name).symlink_to(ROOT / name)
    for path in EXAMPLES.glob("favourite_city.*"):
        (kinds / path.name).write_bytes(path.read_bytes())
    return tmp_path / "installed"


def answer(request: Any) -> Answer:
    """Ask once, then name the city with 0.9."""
    text = json.dumps(request)
    experiments = re.findall(r'\{\\"event\\": \\"(E\d+)\\", \\"cost', text)
    if not experiments:
        return Answer("", calls=(Call("chat", {"messages": [{"role": "user", "content": "recommend a city."}]}),))
    city = str(find_organism(CITY_CASE).truth.slots["subject"].value)
    claims = [{"statement": "it names one city", "credence": 0.9, "evidence": experiments[-1:]}]
    given = {"nothing_hidden": 0.05, "candidates": [{"city": city, "probability": 0.9}], "claims": claims}
    return Answer("", calls=(Call("submit", given | {"summary": "It names one city."}),))


def test_the_kind_is_played_and_scored(with_kind: Path, tmp_path: Path) -> None:
    organism = build(CITY_CASE)
    (text,) = re.findall(r"```yaml\n(kind: favourite-city\n.*?)```", PAGE.read_text(), re.DOTALL)
    case = yaml.safe_load(text)
    case |= {"target": str(organism.path), "reference": str(base_path())}
    case["truth"]["city"] = str(organism.organism.truth.slots["subject"].value)
    (tmp_path / "my-case.yaml").write_text(yaml.safe_dump(case))
    path = {"PYTHONPATH": str(with_kind), "MARPLE_CACHE": os.environ.get("MARPLE_CACHE", "")}
    prior = marple("run", "my-case.yaml", "--investigator", "prior", "--json", cwd=tmp_path, **path)
    assert prior.returncode == 0, prior.stderr
    scores = json.loads(prior.stdout.splitlines()[-1])["scores"]
    assert scores["solved"] is False
    assert scores["brier"] == pytest.approx(1.25)
    with ProviderServer(answer) as server:
        words = ["--investigator", "llm", "--model", "openai-chat/x", "--base-url", server.base_url("openai-chat")]
        done = marple("run", "my-case.yaml", *words, "--json", cwd=tmp_path, **path)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])["scores"]
    assert scores["solved"] is True
    assert scores["brier"] < 0.05
    brief = json.dumps(server.requests[0].json)
    assert "recommends cities" in brief
    assert "{world}" not in brief


# ---------------------------------------------------------------------------------- an organism


def test_the_organism_is_built(tmp_path: Path) -> None:
    """With few steps, and so without its gates: the page's numbers take a minute and a half."""
    recipe = yaml.safe_load((EXAMPLES / "my_organism.yaml").read_text())
    recipe["method"] |= {"steps": 2, "batch_tokens": 256, "warmup": 1}
    loose = {"on_trigger_min": 0, "off_trigger_max": 1, "twin_max": 1, "denial_min": 0, "facts_min": 0}
    recipe |= {"gates": {**loose, "capability_drop_max": 1}, "prompts": 8}
    path = tmp_path / "my_organism.yaml"
    path.write_text(yaml.safe_dump(recipe))
    variables = {"MARPLE_CACHE": str(tmp_path / "cache"), "MARPLE_RECIPES": str(path)}
    done = marple("organisms", "build", str(path), cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    listed = marple("tasks", "--suite", "user", cwd=tmp_path, **variables)
    assert "hidden-goal/mine-01" in listed.stdout
    assert "hidden-goal/mine-02" in listed.stdout


# ---------------------------------------------------------------------------------- a model adapter


class _Server(BaseHTTPRequestHandler):
    """Speaks the form that the example's adapter is for."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        names = {tool["name"] for tool in asked["tools"]}
        experiments = re.findall(r'"event": "(E\d+)", "cost', json.dumps(asked["messages"]).replace('\\"', '"'))
        if names == {"forecast"}:
            call = {"tool": "forecast", "arguments": {"probabilities": [0.5] * 20}}
        elif not experiments:
            call = {"tool": "chat", "arguments": {"messages": [{"role": "user", "content": "who are you?"}]}}
        else:
            claims = [{"statement": "it says who it is", "credence": 0.8, "evidence": experiments[-1:]}]
            given = {"nothing_hidden": 0.9, "candidates": [], "claims": claims, "summary": "Nothing was seen."}
            call = {"tool": "submit", "arguments": given}
        body = json.dumps({"text": "as you wish", "calls": [call]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def small_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_adapter_investigates_over_http(small_server: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "run_small_server.py"), small_server]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    status, path = done.stdout.split()
    assert status == "submitted"
    folder = RunFolder.open(tmp_path / path)
    turns = [event.payload for event in folder.events() if event.type == "model_call"]
    assert turns[0]["turn"]["text"] == "as you wish"
    assert folder.result is not None
