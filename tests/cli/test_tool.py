"""``marple tool``: one tool on one target, results and plots written, and every mistake explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marple.sandboxes import choose_backend
from tests.cli.conftest import Marple

CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 6}


def test_a_result_is_printed_and_written(marple: Marple, tiny: Path, tmp_path: Path) -> None:
    done = marple("tool", "chat", "--target", tiny, "--args", json.dumps(CHAT), "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reply 1: ")
    (folder,) = (tmp_path / "tool-results").iterdir()
    assert "-chat-" in folder.name
    assert str(folder.relative_to(tmp_path)) in done.stdout
    result = json.loads((folder / "result.json").read_text())
    assert result["text"] in done.stdout
    assert result["seed"] == 3
    assert result["arguments"] == CHAT
    assert len(result["data"]["replies"]) == 2
    assert result["cost"]["generated_tokens"] > 0
    assert result["facts"]["layers"] == 2
    assert result["stamp"]["backend"] == choose_backend().backend.name


def test_arguments_from_a_file_the_result_as_json_and_the_plots_beside_it(
    marple: Marple, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "args.json").write_text('{"text": "who is it"}')
    done = marple("tool", "logit_lens", "--target", tiny, "--args", "@args.json", "--out", "deep/results", "--json")
    assert done.returncode == 0, done.stderr
    (record,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert record == json.loads((tmp_path / "deep/results/result.json").read_text())
    assert record["out"] == "deep/results"
    assert record["artifacts"]
    for artifact in record["artifacts"]:
        content = (tmp_path / "deep/results" / artifact["file"]).read_bytes()
        assert content.startswith(b"\x89PNG") == (artifact["media_type"] == "image/png")


def test_an_organism_comes_with_its_base(marple: Marple) -> None:
    arguments = {"conditions": {"shopping": ["Which lamp should I buy?"]}, "samples": 4}
    done = marple("tool", "compare", "--target", "nano-09", "--args", json.dumps(arguments), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["facts"]["vocab"] > 1000


def test_the_list_names_every_tool_with_its_rung(marple: Marple) -> None:
    done = marple("tool", "--json")
    assert done.returncode == 0
    tools = {tool["name"]: tool for tool in json.loads(done.stdout)}
    assert tools["chat"]["rung"] == 1
    assert tools["compare"]["needs"] == ["reference"]
    assert tools["search_transcripts"]["needs"] == ["corpus"]
    assert all(tool["summary"] for tool in tools.values())


def test_a_tool_by_itself_shows_what_it_takes(marple: Marple) -> None:
    done = marple("tool", "chat")
    assert done.returncode == 0
    assert '"required"' in done.stdout
    shown = json.loads(marple("tool", "chat", "--json").stdout)
    assert shown["parameters"]["required"] == ["messages"]
    assert f"--args '{json.dumps(shown['example'])}'" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["chatt"], r"unknown tool 'chatt'; did you mean chat"),
        (["chat", "--args", "{}"], "say on which target"),
        (["chat", "--target", "nano-0009", "--args", "{}"], "unknown target 'nano-0009'; did you mean .*nano-09"),
        (["chat", "--target", "{tiny}"], 'needs --args with messages, for example --args \'{"messages": '),
        (["chat", "--target", "{tiny}", "--args", '{"messages": [,]}'], "is not JSON: .*line 1, column 15, near"),
        (["chat", "--target", "{tiny}", "--args", '{"samples": NaN}'], "NaN is not a JSON number"),
        (["chat", "--target", "{tiny}", "--args", "[1]"], "is not a JSON object"),
        (["chat", "--target", "{tiny}", "--args", "@nowhere.json"], "cannot be read from 'nowhere.json'"),
        (["chat", "--target", "{tiny}", "--args", '{"samples": 2}'], "messages is missing.* Example: "),
        (["compare", "--target", "{tiny}", "--args", "{}"], r"compare needs a reference \(--reference\)"),
        (["chat", "--target", "{tiny}", "--adapter", "{tiny}", "--args", "{}"], "is a model, not an adapter"),
        (["chat", "--target", "nano-09", "--adapter", "{tiny}", "--args", "{}"], "nano-09 is whole"),
        (["chat", "--target", "{tiny}", "--sae", "nowhere", "--args", "{}"], "no directory 'nowhere'"),
        (["chat", "--target", "{tiny}", "--corpus", "nowhere", "--args", "{}"], "no corpus 'nowhere'"),
        (["chat", "--target", "{tiny}", "--out", "{tiny}/config.json", "--args", "{}"], "cannot be a folder"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_mistake_is_named_with_the_way_out(
    marple: Marple, tiny: Path, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    import re

    done = marple("tool", *(argument.replace("{tiny}", str(tiny)) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert re.search(reason, done.stderr), done.stderr
    assert done.stderr.startswith("marple: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "tool-results").exists()
