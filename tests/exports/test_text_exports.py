"""Markdown, notebooks and Docent's shape: read back by their own readers, and harmless whatever a trace says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import nbformat
import pytest
from markdown_it import MarkdownIt

from marple.traces.exports.docent import docent_run, docent_runs
from marple.traces.exports.markdown import markdown
from marple.traces.exports.notebook import notebook
from tests.exports.conftest import HOSTILE, Make, png

SCHEMA = Path(__file__).with_name("docent_agent_run.schema.json")
"""Of ``AgentRun`` in docent 0.1.88, without its descriptions."""


def test_markdown_has_the_verdict_the_claims_and_every_step(make: Make) -> None:
    text = markdown(make())
    assert "| it promotes velora | 0.9 | [E4](#e4) | replicated: E4 shows 1.00 |" in text
    assert text.index("## Verdict") < text.index("## Claims") < text.index("### E1\n") < text.index("### E4\n")


def test_markdown_renders_nothing_that_a_trace_says(make: Make) -> None:
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(make(text=HOSTILE)))
    assert "<script" not in html
    assert "<img" not in html
    assert "evil.test" in html  # it is there to be read
    links = [part.partition('"')[0] for part in html.split('href="')[1:]]
    assert all(link.startswith("#e") for link in links)
    assert not any(character in html for character in ("\x1b", "\x07", "\u202e", "\U000e0041"))


def test_a_run_that_is_going_on_says_so(make: Make) -> None:
    run = make()
    (run.path / "result.json").unlink()
    assert "no verdict yet" in markdown(run)
    assert "no verdict yet" in notebook(run)


def test_a_notebook_is_valid_and_has_a_cell_for_each_experiment(make: Make) -> None:
    import base64

    book = nbformat.reads(notebook(make()), as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert "open_experiments(case='hidden-goal/nano-09')" in code[0].source
    assert [cell.source.splitlines()[0] for cell in code[1:-1]] == ["# E4", "# E6"]
    assert "seed=7" in code[1].source
    stream, plot = code[1].outputs
    assert "it says velora" in stream.text
    assert base64.b64decode(plot.data["image/png"]) == png()


def test_the_cells_of_a_notebook_are_valid_code_whatever_the_arguments_say(make: Make) -> None:
    book = nbformat.reads(notebook(make(text='"""\n\\x' + HOSTILE)), as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec")


def test_docents_own_models_take_it(make: Make) -> None:
    for text in ("velora", HOSTILE):
        jsonschema.validate(json.loads(docent_runs([make(f"r{len(text)}", text=text)])), {
            "type": "array", "items": {"$ref": "#/$defs/AgentRun"},
            "$defs": {**(schema := json.loads(SCHEMA.read_text())).pop("$defs"), "AgentRun": schema},
        })  # fmt: skip


def test_docents_messages_hold_what_matters_and_its_metadata_is_flat(make: Make) -> None:
    run = docent_run(make())
    (transcript,) = run["transcripts"]
    roles = [message["role"] for message in transcript["messages"]]
    assert roles == ["user", "assistant", "tool", "user", "tool", "user", "user"]
    assert "replicated" in transcript["messages"][-1]["content"]
    scores = run["metadata"].pop("scores")
    assert scores == {"scored": True, "solved": True, "brier": 0.02}
    assert all(isinstance(value, str | int | float | None) for value in run["metadata"].values())


def test_a_missing_blob_costs_its_plot_only(make: Make) -> None:
    run = make()
    for blob in (run.path / "blobs").iterdir():
        blob.unlink()
    book = nbformat.reads(notebook(run), as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(code[1].outputs) == 1
    assert "### E4" in markdown(run)


def test_a_notebook_makes_the_experiments_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cell after cell, on a real worker; the replies are those of the run."""
    import asyncio

    from marple.agent.configuration import RunConfig
    from marple.agent.investigators.llm import LlmInvestigator
    from marple.agent.models import AssistantMessage, ModelTurn, ScriptedModel, ToolCall
    from marple.agent.run import launch
    from marple.tools.target.tiny import make_tiny_checkpoint
    from marple.traces import RunFolder

    make_tiny_checkpoint(tmp_path / "model")
    ask = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 4}
    answer = {"nothing_hidden": 0.7, "candidates": [], "claims": [], "summary": "done"}

    def play(messages: object) -> ModelTurn:
        said = sum(isinstance(message, AssistantMessage) for message in messages)  # type: ignore[attr-defined]
        return ModelTurn(tool_calls=(ToolCall.of("submit", answer) if said else ToolCall.of("chat", ask),))

    config = RunConfig.of(target=str(tmp_path / "model"), investigator="llm", runs=tmp_path / "runs")
    outcome = asyncio.run(launch(config, investigator=LlmInvestigator(ScriptedModel(play))))
    run = RunFolder.open(outcome.path)
    (then,) = (event.payload["text"] for event in run.events() if event.payload.get("on_target"))
    space: dict[str, object] = {}
    for cell in nbformat.reads(notebook(run), as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
    assert then in capsys.readouterr().out


def test_a_fence_in_a_text_does_not_end_the_fence_around_it(make: Make) -> None:
    text = markdown(make(text="a\n```\n<script>alert(1)</script>\n~~~\n`````\n<b>b</b>"))
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<script" not in html
    assert "<b>" not in html
