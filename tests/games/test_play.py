"""``marple play`` as an agent with nothing but a shell uses it: separate commands, one game."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marple.traces import RunFolder
from marple.traces.control import request

CASE = "hidden-goal/nano-09"
BATTERY = {"prompts": ["which lamp should i buy?"], "samples": 2, "max_new_tokens": 16}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path, runtime: Path) -> dict[str, str]:
    chosen = {"MARPLE_RUNTIME": str(runtime), "MARPLE_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **chosen}


@pytest.fixture
def play(tmp_path: Path, environment: dict[str, str]) -> Iterator[Command]:
    def run(*arguments: str, typed: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "marple.cli", "play", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={**environment, **more}, input=typed, capture_output=True, text=True, check=False
        )

    yield run
    for lock in (tmp_path / "runs").glob("*/lock"):  # after a test that failed
        os.kill(int(json.loads(lock.read_text())["pid"]), signal.SIGTERM)


def daemon_of(run: Path) -> int:
    return int(json.loads((run / "lock").read_text())["pid"])


def gone(pid: int) -> bool:
    """Whether a process ends within a while."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def record(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def test_a_game_from_its_brief_to_its_score(
    play: Command, environment: dict[str, str], tmp_path: Path, runtime: Path
) -> None:
    begun = record(play("start", CASE, "--seed", "2", "--budget", "calls=6", "--player", "agent-1", "--json"))
    run, path = begun["run_id"], Path(begun["run_dir"])
    assert path == tmp_path / "runs" / run
    assert f"# Case {CASE}" in begun["brief"]
    assert {"battery", "hypothesis", "submit", "forecast"} <= {tool["name"] for tool in begun["tools"]}
    assert begun["budget"]["calls"] == {"limit": 6, "used": 0, "left": 6}
    assert "turns" not in begun["budget"]
    assert begun["phase"] == "investigate"
    assert any(command.startswith(f"marple play call {path}") for command in begun["commands"])
    first = daemon_of(path)
    known = Path(f"/proc/{first}/cmdline").read_text() + Path(f"/proc/{first}/environ").read_text()
    (socket,) = runtime.glob("*.sock")
    assert socket.stat().st_mode & 0o777 == 0o600

    # A tool says what it takes, and a call what came of it.
    shown = play("tools", run, "battery").stdout
    assert "samples (integer 1 to 1000, default 1): replies per prompt." in shown
    assert f"marple play call {path} battery '{{" in shown
    said = play("call", run, "battery", json.dumps(BATTERY), "--why", "a first look").stdout
    assert json.loads(said.partition("\n\nLeft:")[0])["event"].startswith("E")
    assert "5 of 6 experiments" in said

    # What is typed wrong is told, and costs nothing.
    for arguments, words in (
        (("call", run, "battery", "{prompts: 1}"), "is not JSON"),
        (("call", run, "battery", "[]"), "not a JSON object"),
        (("call", run, "battery", "@missing.json"), "cannot be read"),
        (("call", run, "battery", '{"prompt": "hi"}'), "prompt is not known"),
        (("call", run, "flute", "{}"), "unknown tool 'flute'"),
        (("tools", run, "flute"), "unknown tool 'flute'"),
        (("forecast", run, "[0.5]"), "submit first"),
        (("submit", run, '{"nothing_hidden": 7}'), "less than or equal to 1"),
        (("call", "nowhere", "battery"), "unknown run"),
    ):
        refused = play(*arguments)
        assert refused.returncode == 2, arguments
        assert words in refused.stdout + refused.stderr
    assert record(play("status", run, "--json"))["budget"]["calls"]["left"] == 5

    # Two calls at the same time are made one after the other.
    command = [sys.executable, "-m", "marple.cli", "play", "call", run, "battery", "-", "--json"]
    both = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write(json.dumps(BATTERY))
        process.stdin.close()
    answers = []
    for process in both:
        assert process.stdout is not None
        answers.append(json.loads(process.stdout.read()))
        process.stdout.close()
        assert process.wait() == 0
    assert len({answer["results"][0]["event"] for answer in answers}) == 2

    # Killed in between, it goes on where it was.
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert RunFolder.open(path).status == "interrupted"
    again = play("status", run)
    assert "going on with it" in again.stderr
    assert "3 of 6 experiments" in again.stdout
    assert again.stdout.count(" battery") >= 3

    # The answer, the held-out questions, the score.
    asked = record(play("submit", run, "-", "--json", typed='{"nothing_hidden": 0.5, "candidates": []}'))
    assert (asked["phase"], asked["questions"], asked["result"]) == ("forecast", 20, None)
    assert asked["results"][0]["text"].count('"reply_a"') == 20
    last = daemon_of(path)
    short = play("forecast", run, "[0.5, 0.5]")
    assert short.returncode == 2
    assert "there are 20 questions and 2 probabilities" in short.stderr
    wrong = play("forecast", run, json.dumps({"probabilities": [2] + [0.5] * 19}))
    assert wrong.returncode == 2
    assert "probability 1 is 2" in wrong.stderr
    assert play("call", run, "battery", json.dumps(BATTERY)).returncode == 2
    end = play("forecast", run, json.dumps([0.5] * 20))
    assert end.returncode == 0
    assert "truth" in end.stdout
    over = record(play("status", run, "--json"))
    assert over["phase"] == "over"
    subject = over["result"]["truth"]["slots"]["subject"]["value"]
    assert subject not in known
    late = play("call", run, "battery", "{}")
    assert late.returncode == 2
    assert "is over (submitted)" in late.stderr

    # The same trace as any other run's, and nothing left behind.
    folder = RunFolder.open(path)
    assert folder.spec["investigator"] == "shell"
    assert folder.spec["model"] == "agent-1"
    calls = [event.payload for event in folder.events() if event.type == "tool_call" and event.payload.get("on_target")]
    assert len({call["turn_number"] for call in calls}) == len(calls) == 3
    thought = [event.payload["turn"]["text"] for event in folder.events() if event.type == "model_call"]
    assert "a first look" in thought
    assert gone(last)
    assert list(runtime.iterdir()) == []
    assert not {"lock", "player.json"} & {file.name for file in path.iterdir()}


def test_a_paused_run_says_at_once_why_a_call_waits(play: Command, environment: dict[str, str], tmp_path: Path) -> None:
    path = Path(record(play("start", CASE, "--json"))["run_dir"])
    note = json.dumps({"text": "a note"})
    for json_mode in (False, True):
        request(path, "pause", by="a reviewer")
        told = play("status", path.name, "--json")
        assert record(told)["paused"] is True
        command = [sys.executable, "-m", "marple.cli", "play", "call", path.name, "note", note]
        with subprocess.Popen(
            [*command, *(["--json"] if json_mode else [])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as waiting:
            assert waiting.stderr is not None
            assert waiting.stdout is not None
            said = waiting.stderr.readline()  # comes while the call still waits
            assert waiting.poll() is None
            if json_mode:
                shown = json.loads(said)
                assert (shown["paused"], shown["by"], shown["go"]) == (True, "a reviewer", f"marple go {path}")
            else:
                assert f"marple go {path} lets it go on" in said
                assert "a reviewer" in said
            request(path, "go")
            out = waiting.stdout.read()
            assert waiting.wait(60) == 0
        assert waiting.stderr.closed
        if json_mode:
            assert json.loads(out)["paused"] is False
    status = play("status", path.name)
    assert "is paused" not in status.stderr + status.stdout
    # With nobody there, and the run still to be paused, starting it again waits, and says so.
    play("stop", path.name)
    request(path, "pause", by="a reviewer")
    with subprocess.Popen(
        [sys.executable, "-m", "marple.cli", "play", "status", path.name, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stderr is not None
        assert any("marple go" in line for line in iter(waiting.stderr.readline, ""))
        request(path, "go")
        assert waiting.wait(60) == 0
    play("stop", path.name)


def test_what_cannot_be_started_is_told_and_leaves_nothing(play: Command, tmp_path: Path, runtime: Path) -> None:
    no_folder = tmp_path / "file"
    no_folder.write_text("")
    for arguments, code, words in (
        (("start", "hidden-goal/nano-99"), 2, "nano-99"),
        (("start", CASE, "--approval", "ask"), 2, "needs a terminal"),
        (("start", CASE, "--runs", str(no_folder)), 1, str(no_folder)),
        (("status", "nothing"), 2, "unknown run"),
    ):
        done = play(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert words in done.stderr
        assert done.stdout == ""
    told = play("status", "nothing", "--json")
    assert told.returncode == 2
    assert json.loads(told.stdout)["kind"] == "usage"
    assert "unknown run 'nothing'" in json.loads(told.stdout)["error"]
    assert list(runtime.iterdir()) == []
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


def test_the_folder_of_the_sockets_must_be_private(play: Command, runtime: Path) -> None:
    runtime.chmod(0o755)
    done = play("start", CASE)
    assert done.returncode == 2
    assert "is open to others" in done.stderr
    long = play("start", CASE, MARPLE_RUNTIME="/tmp/" + "x" * 100)
    assert long.returncode == 2
    assert "too long for a socket" in long.stderr


def test_each_run_is_gone_on_with_by_its_own_player(play: Command, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs", "r1", {"case": CASE, "investigator": "scripted-blackbox"})
    folder.close()
    done = play("call", "r1", "battery", "{}")
    assert done.returncode == 2
    assert "played by scripted-blackbox" in done.stderr
    RunFolder.create(tmp_path / "runs", "r2", {"case": CASE, "investigator": "shell", "model": "agent-1"}).close()
    resume = [sys.executable, "-m", "marple.cli", "resume", "r2"]
    done = subprocess.run(resume, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "marple play status runs/r2 goes on with it" in done.stderr
