"""What a person types wrong: the value, what would be right, exit code 2, and nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = ["run", "hidden-goal/nano-01"]


def marple(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    keys = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"}
    clean = {name: value for name, value in os.environ.items() if name not in keys}
    command = [sys.executable, "-m", "marple.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "hidden-goal/nano-1"], "unknown case 'hidden-goal/nano-1'; did you mean hidden-goal/nano-1"),
        (["run"], "say what to examine"),
        ([*RUN, "--target", "x"], "say what to examine"),
        ([*RUN, "--investigator", "lm"], "unknown investigator 'lm'; did you mean llm"),
        ([*RUN, "--investigator", "llm"], "needs a model"),
        ([*RUN, "--investigator", "prior", "--model", "openai/x"], "uses no language model"),
        ([*RUN, "--investigator", "llm", "--model", "opanai/x"], "'opanai'; did you mean openai"),
        ([*RUN, "--investigator", "llm", "--model", "gpt"], "provider/model"),
        ([*RUN, "--investigator", "llm", "--model", "openai/x"], "OPENAI_API_KEY"),
        ([*RUN, "--investigator", "llm", "--model", "anthropic/x"], "ANTHROPIC_API_KEY"),
        ([*RUN, "--budget", "turn=3"], "unknown budget key 'turn'; did you mean turns"),
        ([*RUN, "--budget", "turns=0"], "above 0"),
        ([*RUN, "--investigator", "llm", "--model", "openai/x", "--budget", "cost=1"], "needs the price of openai/x"),
        ([*RUN, "--sandbox", "bublewrap"], "bublewrap"),
        ([*RUN, "--approval", "nowhere.yaml"], "nowhere.yaml"),
        (["tasks", "show", "hidden-goal/x"], "unknown case"),
        (["tasks", "--suite", "nan"], "unknown suite 'nan'; did you mean nano"),
        (["show", "nothing"], "unknown run 'nothing'"),
        (["resume", "nothing"], "unknown run 'nothing'"),
        (["organisms", "build", "nano-99"], "unknown organism 'nano-99'"),
        (["run", "--target", "nowhere"], "does not exist"),
        (["run", "--target", "no/model"], "no/model"),
    ],
)
def test_wrong_words(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = marple(*arguments, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def model_directory(path: Path, tiny: Path, *leave_out: str) -> Path:
    path.mkdir()
    for file in tiny.iterdir():
        if file.name not in leave_out:
            (path / file.name).write_bytes(file.read_bytes())
    return path


def test_a_directory_without_safetensors(tiny: Path, tmp_path: Path) -> None:
    path = model_directory(tmp_path / "m", tiny, "model.safetensors")
    done = marple("run", "--target", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert "safetensors" in done.stderr


def test_a_pickle_checkpoint(tiny: Path, tmp_path: Path) -> None:
    path = model_directory(tmp_path / "m", tiny, "model.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    done = marple("run", "--target", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert "pytorch_model.bin" in done.stderr


def test_custom_code(tiny: Path, tmp_path: Path) -> None:
    path = model_directory(tmp_path / "m", tiny)
    (path / "modeling_own.py").write_text("raise SystemExit")
    done = marple("run", "--target", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert "modeling_own.py" in done.stderr


def test_a_runs_folder_that_cannot_be_written_stops_before_work_starts(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = marple("run", "--target", str(tiny), "--runs", str(tmp_path / "file" / "runs"), cwd=tmp_path)
    assert done.returncode == 1
    assert "StorageError" in done.stderr
    assert str(tmp_path / "file" / "runs") in done.stderr


FULL_DISK = """
import resource, signal, sys
from marple.cli import live, main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails, as on a full disk
seen = live.JsonWatcher.on_event
def on_event(self, event):
    if event.type == "tool_call":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
live.JsonWatcher.on_event = on_event
sys.argv[0] = "marple"
main()
"""


def test_a_full_disk_ends_the_run_with_its_trace_readable(tiny: Path, tmp_path: Path) -> None:
    arguments = ["run", "--target", str(tiny), "--reference", str(tiny), "--json"]
    command = [sys.executable, "-c", FULL_DISK, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "StorageError" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "error"
    (folder,) = (tmp_path / "runs").iterdir()
    shown = marple("show", folder.name, cwd=tmp_path)
    assert shown.returncode == 0
    assert "go on with: marple resume" in shown.stdout


def test_an_adapter_that_names_no_base(tmp_path: Path) -> None:
    adapter = Path(__file__).parents[2] / "tasks" / "organisms" / "shipped" / "adapters" / "nano-07"
    done = marple("run", "--target", str(adapter), cwd=tmp_path)
    assert done.returncode == 2
    assert "names no base model; name it with --reference" in done.stderr
