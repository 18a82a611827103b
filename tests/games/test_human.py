"""A person plays: at a real terminal with completion and Ctrl-C, then through a pipe to the score."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self

import pytest

from marple.agent.games.typed import fill_form, read_arguments
from marple.errors import ToolError
from marple.traces import RunFolder

CASE = "hidden-goal/nano-09"


class AtTerminal:
    """A command at a terminal of its own."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.master, slave = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "marple.cli", *arguments],
            cwd=cwd,
            env={**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, words: str) -> str:
        """What is printed up to these words."""
        deadline = time.monotonic() + 120
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if not select.select([self.master], [], [], 1)[0]:
                continue  # a read would wait beyond the deadline
            try:
                piece = os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                piece = ""
            assert piece, f"{words!r} did not come: {self.seen}"
            self.seen += piece
        before, _, self.seen = self.seen.partition(words)
        return before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        os.close(self.master)


def test_at_a_terminal_then_through_a_pipe(tmp_path: Path) -> None:
    with AtTerminal("run", CASE, "--investigator", "human", "--budget", "calls=4", cwd=tmp_path) as screen:
        brief = screen.wait_for("marple> ")
        assert f"# Case {CASE}" in brief
        assert "Left: 4 of 4 experiments" in brief
        screen.type("batt\t")
        screen.wait_for("battery ")
        screen.type("max\t")
        screen.wait_for("max_new_tokens=")
        screen.type('8 prompts="which lamp should i buy?"\r')
        shown = screen.wait_for("Left: 3 of 4 experiments")
        assert '| [0] "which lamp should i buy?" -> ' in shown
        screen.wait_for("marple> ")
        time.sleep(1)  # the prompt is printed a moment before it is the line editor that takes the key
        screen.type("\x03")
        screen.wait_for("Put aside. Go on with: marple resume")
        assert screen.process.wait(60) == 130
    (path,) = (tmp_path / "runs").iterdir()
    assert RunFolder.open(path).status == "interrupted"

    typed = [
        "help battery",
        "flute",
        "battery prompt=hi",
        'chat messages="who is it?" samples=2',
        "hypothesis action=add credence=0.2",
        'hypothesis action=add credence=0.2 statement="it sells lamps"',
        "notes",
        "submit",
        *("n", "It was quick.", "nobody", "0.9", "y", "0.3", "sells", "other", "lamps", "", "n", "y"),
        "submit",
        *("n", "", "0.5", "y", "y"),
        *("two", "1.5", *["0.5"] * 20),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "marple.cli", "resume", path.name],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        input="\n".join(typed) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        'battery {"template":',  # the example of help
        "there is no 'flute'",
        "'prompt=hi' is not key=value with one of prompts,",
        "Left: 2 of 4 experiments",
        "hypothesis add needs a statement",
        "hypothesis   H1 0.20  it sells lamps",
        "'nobody' is not a number",
        "'sells' is none of promotes, warns_against, other",
        "sum to",  # 0.9 and 0.3 are refused by the answer's own rule; then 0.9 is kept no longer
        "[0.9]",
        "20 of 20",
        "'two' is not a number from 0 to 1",
        "truth",
    ):
        assert words in done.stdout, words
    folder = RunFolder.open(path)
    assert folder.result is not None
    assert folder.result["status"] == "submitted"
    assert folder.result["investigator"] == "human"
    assert folder.result["answer"]["summary"] == "It was quick."
    assert folder.result["scores"]["forecast"]["n"] == 20


@pytest.mark.parametrize(("option", "words"), [("--json", "marple play"), ("--model=openai/m", "leave out --model")])
def test_a_person_plays_by_no_json_and_no_model(option: str, words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "marple.cli", "run", CASE, "--investigator", "human", option]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "runs").exists()


SCHEMA = {
    "properties": {
        "prompts": {"type": "array", "items": {"type": "string"}},
        "messages": {"type": "array", "items": {"type": "object", "properties": {"role": {}, "content": {}}}},
        "samples": {"type": "integer", "minimum": 1, "maximum": 10},
        "on": {"type": "string", "enum": ["target", "reference"]},
        "text": {"type": "string"},
    },
    "required": ["samples"],
}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", {}),
        ('{"samples": 2}', {"samples": 2}),
        ('samples=2 text="7"', {"samples": 2, "text": "7"}),
        ("prompts='a, b' prompts=c", {"prompts": ["a, b", "c"]}),
        ("""prompts='["a", "b"]'""", {"prompts": ["a", "b"]}),
        ("messages='who is it?'", {"messages": [{"role": "user", "content": "who is it?"}]}),
        ("samples=many", {"samples": "many"}),  # the tool says what is wrong with it
    ],
)
def test_arguments_are_json_or_words(typed: str, meant: object) -> None:
    assert read_arguments(typed, SCHEMA) == meant


@pytest.mark.parametrize(
    ("typed", "words"), [("{samples", "not JSON"), ("sample=2", "'sample=2' is not"), ("text='a", "do not close")]
)
def test_what_cannot_be_read_names_the_arguments(typed: str, words: str) -> None:
    with pytest.raises(ToolError, match=words) as error:
        read_arguments(typed, SCHEMA)
    assert "prompts, messages, samples, on, text" in str(error.value)


def test_a_form_asks_again_and_keeps_what_was_there() -> None:
    answers = iter(["a, b", "n", "", "11", "3", "me", "target", ""])
    said: list[str] = []
    filled = fill_form(SCHEMA, lambda prompt: next(answers), said.append, before={"text": "kept"})
    assert filled == {"prompts": ["a", "b"], "messages": [], "samples": 3, "on": "target", "text": "kept"}
    told = "\n".join(said)
    assert "samples is required" in told
    assert "11 is not 1 to 10" in told
    assert "'me' is none of target, reference" in told
    assert json.dumps(filled)
