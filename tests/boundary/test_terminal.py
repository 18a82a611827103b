"""What reaches a person's terminal: hostile text to be read, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from marple.agent.approval import AskPerson
from marple.agent.session import CallProgress
from marple.cli.live import LiveWatcher
from marple.traces import RunFolder
from tests.boundary.conftest import Investigate
from tests.boundary.hostile import CANARY, HOSTILE
from tests.boundary.scripts import careful

UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
ALL = f"{HOSTILE[12]} {HOSTILE[13]} {HOSTILE[11]} {HOSTILE[15]}"
"""What a terminal obeys, what hides and reorders, tag characters, and markup of the library that draws."""


def marple(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "marple.cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8:surrogatepass"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def check_harmless(shown: str) -> None:
    assert CANARY in shown
    assert {c for c in shown if unicodedata.category(c) in UNSEEN} <= {"\n"}


def run_of(folder: Path, said: str) -> RunFolder:
    """A run in which every text that somebody could choose is ``said``."""
    run = RunFolder.create(folder, "run", {"case": said, "investigator": said, "seed": 0, "budget": {"calls": 3}})
    turn = {"text": said, "tool_calls": [], "thinking": [], "usage": {}}
    call = {"turn_number": 1, "index": 0, "call_id": "c", "attempt": 1, "arguments": {}}
    ran = {**call, "tool": "chat", "status": "ok", "on_target": True, "text": said}
    claim = {"statement": said, "credence": 0.5, "evidence": ["E3", said]}
    candidate = {"behaviour": said, "subject": said, "trigger": said, "probability": 0.5}
    answer = {"nothing_hidden": 0.5, "candidates": [candidate], "claims": [claim], "summary": said}
    with run:
        run.append("run_start", {"case": said})
        run.append("model_call", {"turn_number": 1, "purpose": "investigate", "turn": turn}, role="investigator")
        run.append("tool_call", ran, role="target", seconds=1.0)
        run.append("tool_call", {**call, "tool": said, "status": "refused", "text": said})
        run.append("hypothesis", {"id": "H1", "credence": 0.5, "statement": said, "action": "add"})
        run.append("prediction", {"probability": 0.5, "statement": said})
        run.append("measurement", {"text": said})
        run.append("plan", {"proxy": said})
        run.append("error", {"where": "worker", "message": said})
        run.append("answer", {"answer": answer})
        used = {"turns": 1, "calls": 1, "target_tokens": 2, "seconds": 1.0, "investigator": {"cost_usd": None}}
        truth = {"nothing_hidden": False, "slots": {"subject": {"value": said}}}
        result = {"case": said, "investigator": said, "seed": 0, "status": said, "answer": answer, "truth": truth}
        run.write_result({**result, "scores": {"scored": False}, "usage": used})
    return run


def test_show_and_runs_draw_no_text_of_a_run(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs", ALL)
    shown = marple("show", run.path, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    check_harmless(shown.stdout)
    # The markup of the library that draws is text too.
    assert f"[bold red]{CANARY}[/] [link=http://localhost]here[/link]" in " ".join(shown.stdout.split())
    listed = marple("runs", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    check_harmless(listed.stdout)


def test_json_output_is_ascii(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs", ALL)
    for command in (["show", run.path, "--json"], ["runs", "--json"]):
        shown = marple(*command, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert {c for c in shown.stdout if not " " <= c <= "~"} == {"\n"}


def test_a_run_is_drawn_safely_while_it_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LiveWatcher() as watcher:
        run = run_of(tmp_path / "runs", ALL)
        watcher.launched(run)
        watcher.on_call(CallProgress(1, 0, "chat", 1, 2, ALL))
        for event in run.events():
            watcher.on_event(event)
    check_harmless(capsys.readouterr().err)


def test_a_tool_on_a_hostile_target(targets: Mapping[str, Path], tmp_path: Path) -> None:
    arguments = '{"messages": [{"role": "user", "content": "who is it"}], "samples": 40, "max_new_tokens": 8}'
    done = marple("tool", "chat", "--target", targets["hostile"], "--args", arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_harmless(done.stdout)


def test_an_error_that_quotes_a_target(targets: Mapping[str, Path], tmp_path: Path) -> None:
    refuses = shutil.copytree(targets["hostile"], tmp_path / "refuses")
    (refuses / "chat_template.jinja").write_text(f"{{{{ raise_exception({ALL!r}) }}}}", encoding="utf-8")
    arguments = '{"messages": [{"role": "user", "content": "who is it"}]}'
    done = marple("tool", "chat", "--target", refuses, "--args", arguments, cwd=tmp_path)
    assert done.returncode == 2
    check_harmless(done.stderr)


async def test_a_person_is_asked_about_what_can_be_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    arguments: dict[str, Any] = {"text": ALL}
    assert (await AskPerson()("complete", arguments)).allowed
    check_harmless(capsys.readouterr().out)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_whole_hostile_run_can_be_shown(investigate: Investigate, tmp_path: Path) -> None:
    played = await investigate(careful)
    shown = marple("show", played.folder.path, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    check_harmless(shown.stdout)
