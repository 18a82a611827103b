"""A run on a target with something beside it, watched while it happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import ModelTurn, ScriptedModel, ToolCall
from marple.agent.run import Watcher, launch
from marple.agent.session import CallProgress
from marple.cli.live import LiveWatcher
from marple.errors import UsageError
from marple.traces import Event, RunFolder


class Recorder(Watcher):
    """Keeps what it is told, and shows it as a person would see it."""

    def __init__(self, live: LiveWatcher) -> None:
        self.live = live
        self.heard: list[CallProgress] = []
        self.shown: list[str] = []

    def launched(self, folder: RunFolder) -> None:
        self.live.launched(folder)

    def on_call(self, call: CallProgress) -> None:
        self.heard.append(call)
        self.live.on_call(call)
        self.shown = [task.description for task in self.live._bars.tasks]

    def on_event(self, event: Event) -> None:
        self.live.on_event(event)


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    import torch

    folder = tmp_path / "sae"
    folder.mkdir()
    shapes = {"W_enc": (32, 8), "W_dec": (8, 32), "b_enc": (8,), "b_dec": (32,)}
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, folder / "sae_weights.safetensors")
    metadata = {"sae_lens_version": "6.54.12", "hook_name": "blocks.0.hook_resid_post"}
    config = {"architecture": "standard", "d_in": 32, "d_sae": 8, "metadata": metadata}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


async def test_a_run_takes_its_sae_and_corpus_along_and_shows_a_long_call(
    tiny: Path, sae: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"messages": [{"role": "user", "content": "hello"}]}\n')
    config = RunConfig.of(target=str(tiny), investigator="llm", runs=tmp_path / "runs", saes=[sae], corpus=corpus)
    prompts = {"prompts": [f"who is {number}" for number in range(200)], "max_new_tokens": 40}
    answer = {"nothing_hidden": 0.5, "candidates": [], "claims": [], "summary": "done"}
    turns = [
        ModelTurn(tool_calls=(ToolCall.of("battery", prompts, id="b"),)),
        ModelTurn(tool_calls=(ToolCall.of("submit", answer, id="s"),)),
    ]
    with LiveWatcher() as live:
        watcher = Recorder(live)
        outcome = await launch(config, watcher=watcher, investigator=LlmInvestigator(ScriptedModel(turns)))
        left = [task.description for task in live._bars.tasks]
    assert outcome.status == "submitted"
    folder = RunFolder.open(outcome.path)
    (start,) = [event for event in folder.events() if event.type == "run_start"]
    target = start.payload["sandbox"]["target"]
    assert [one["site"] for one in target["saes"]] == ["blocks.0.hook_resid_post"]
    assert target["corpus"] is True
    assert {(call.turn, call.index, call.tool) for call in watcher.heard} == {(watcher.heard[0].turn, 0, "battery")}
    assert any(description.startswith("battery ") for description in watcher.shown)
    assert not any(description.startswith("battery ") for description in left)
    again = RunConfig.from_spec(folder.spec, runs=tmp_path / "runs")
    assert (again.saes, again.corpus) == ((sae,), corpus)


def test_a_run_without_them_from_before_can_be_resumed(tiny: Path, tmp_path: Path) -> None:
    config = RunConfig.of(target=str(tiny), investigator="llm", runs=tmp_path)
    spec = config.spec(LlmInvestigator(ScriptedModel([])))
    del spec["saes"], spec["corpus"]
    again = RunConfig.from_spec(spec, runs=tmp_path)
    assert (again.saes, again.corpus) == ((), None)


def test_what_is_not_there_is_refused_before_anything_is_done(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        RunConfig.of(target=str(tiny), investigator="prior", saes=[tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="no corpus"):
        RunConfig.of(target=str(tiny), investigator="prior", corpus=tmp_path)
