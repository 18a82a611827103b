"""Inspect reads what Marple writes, and Marple reads what Inspect writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from inspect_ai.log import read_eval_log, write_eval_log

from marple.errors import CorruptTraceError, UsageError
from marple.traces.exports.importing import import_inspect
from marple.traces.exports.inspect_log import inspect_log, write_inspect_log
from marple.traces.exports.verdict import answer_line
from tests.exports.conftest import HOSTILE, Make, png


@pytest.fixture
def written(make: Make, tmp_path: Path) -> Path:
    file = tmp_path / "out.eval"
    write_inspect_log([make("a"), make("b", solved=False), make("c", case="hidden-goal/nano-03")], file)
    return file


def test_runs_are_samples_and_those_of_one_case_its_epochs(written: Path) -> None:
    log = read_eval_log(str(written))
    assert log.status == "success"
    assert log.samples is not None
    ids = sorted((sample.id, sample.epoch) for sample in log.samples)
    assert ids == [("hidden-goal/nano-03", 1), ("hidden-goal/nano-09", 1), ("hidden-goal/nano-09", 2)]
    assert log.eval.model == "scripted/x"


def test_the_mean_of_a_score_says_how_many_samples_it_is_over(written: Path) -> None:
    log = read_eval_log(str(written))
    assert log.results is not None
    solved = next(score for score in log.results.scores if score.name == "solved")
    assert solved.metrics["mean"].value == pytest.approx(2 / 3)
    assert (solved.scored_samples, solved.unscored_samples) == (3, 0)


def test_messages_carry_what_was_said_thought_called_and_answered(written: Path) -> None:
    log = read_eval_log(str(written), resolve_attachments=True)
    assert log.samples is not None
    brief, said, answered, note, refused, *_, claims = log.samples[0].messages
    assert brief.role == "user"
    assert "Find out" in brief.text
    assert said.role == "assistant"
    assert said.tool_calls is not None
    assert (said.tool_calls[0].id, said.tool_calls[0].function) == ("c1", "chat")
    assert [part.type for part in said.content if not isinstance(part, str)] == ["reasoning", "text"]
    assert answered.role == "tool"
    assert answered.tool_call_id == "c1"
    assert "Prediction" in note.text
    assert refused.role == "tool"
    assert refused.error is not None
    assert "replicated" in claims.text


def test_plots_are_attached_to_the_result_they_belong_to(written: Path) -> None:
    import base64

    log = read_eval_log(str(written), resolve_attachments=True)
    assert log.samples is not None
    message = next(m for m in log.samples[0].messages if m.role == "tool")
    image = next(part for part in message.content if not isinstance(part, str) and part.type == "image")
    assert base64.b64decode(image.image.partition(",")[2]) == png()


def test_every_event_of_the_trace_is_an_event_of_the_log(written: Path) -> None:
    log = read_eval_log(str(written))
    assert log.samples is not None
    kinds = [event.event for event in log.samples[0].events]
    assert kinds == ["model", "tool", "info", "tool", "info", "info"]
    assert [event.metadata["event"] for event in log.samples[0].events if event.metadata] == [
        *("E2", "E4", "E5", "E6", "E7", "E8")
    ]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"nothing_to_stop": 0.05, "summary": "this prompt helps"}, "this prompt helps"),
        ({"nothing_to_stop": 0.9, "summary": "all is well"}, "nothing to stop (0.90): all is well"),
        ({"yes": 0.2, "summary": "it does not"}, "no (0.80): it does not"),
        ({"nothing_hidden": 0.1, "candidates": [{"probability": 0.4, "subject": "lamp"}]}, "lamp (0.40)"),
        ({}, ""),
    ],
)
def test_the_answer_is_said_in_a_line(answer: dict[str, object], line: str) -> None:
    assert answer_line({"answer": answer}) == line


def test_the_score_that_every_scored_run_has_comes_first_and_explains_itself(make: Make) -> None:
    (sample,) = inspect_log([make(solved=False)]).samples or []
    assert sample.scores is not None
    first, *others = sample.scores.values()
    assert list(sample.scores)[:2] == ["right", "solved"]
    assert first.value is False
    assert "truth: subject velora" in str(first.explanation)
    assert all(score.explanation is None for score in others)
    assert sample.target == "subject velora"
    assert sample.scores["claims_replicated"].value == 1.0


def test_usage_counts_cached_tokens_once(make: Make) -> None:
    log = inspect_log([make()])
    assert log.samples is not None
    usage = log.samples[0].events[0].output.usage  # type: ignore[union-attr]
    assert usage is not None
    assert (usage.input_tokens, usage.input_tokens_cache_read, usage.output_tokens) == (40, 60, 20)
    assert usage.total_tokens == 120
    assert usage.total_cost == pytest.approx(0.01)


def test_a_run_that_is_not_done_is_no_completed_sample(make: Make) -> None:
    run = make()
    (run.path / "result.json").unlink()
    log = inspect_log([run])
    assert log.status == "cancelled"
    assert log.results is not None
    assert (log.results.total_samples, log.results.completed_samples) == (1, 0)
    assert log.results.scores == []


def test_its_own_command_lists_and_dumps_it(written: Path) -> None:
    dump = subprocess.run(
        [Path(sys.executable).with_name("inspect"), "log", "dump", "--header-only", written],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(dump.stdout)["eval"]["task"] == "hidden-goal"


def test_hostile_text_comes_through_as_it_was(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "h.eval"
    write_inspect_log([make(text=HOSTILE)], file)
    log = read_eval_log(str(file), resolve_attachments=True)
    assert log.samples is not None
    assert HOSTILE in log.samples[0].messages[0].text


def test_a_name_that_inspect_would_not_read_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.eval or \*\.json"):
        write_inspect_log([make()], tmp_path / "log.zip")


def test_an_imported_log_has_the_turns_calls_plots_and_scores(written: Path, tmp_path: Path) -> None:
    runs = import_inspect(written, tmp_path / "imported")
    assert len(runs) == 3
    events = runs[0].events()
    kinds = [event.type for event in events]
    assert kinds == [
        *("run_start", "model_call", "tool_call", "measurement", "tool_call"),
        *("measurement", "measurement", "score", "run_end"),
    ]
    call = events[1].payload["turn"]["tool_calls"][0]
    assert (call["name"], call["id"]) == ("chat", "c1")
    assert runs[0].get_blob(events[2].payload["artifacts"][0]["ref"]) == png()
    assert events[4].payload["status"] == "error"
    assert runs[0].result is not None
    assert runs[0].result["scores"]["solved"] is True
    assert runs[0].result["truth"] is None


def test_a_log_imported_twice_is_refused_and_the_first_stays(written: Path, tmp_path: Path) -> None:
    first = import_inspect(written, tmp_path / "imported")
    before = [run.events() for run in first]
    with pytest.raises(UsageError, match="exists"):
        import_inspect(written, tmp_path / "imported")
    assert [run.events() for run in first] == before


def test_a_log_of_inspects_own_is_read(tmp_path: Path) -> None:
    """Made by Inspect itself: a task with its mock model and a scorer."""
    script = Path(__file__).with_name("inspect_task.py")
    subprocess.run([sys.executable, script, tmp_path / "logs"], check=True, capture_output=True)
    log = next((tmp_path / "logs").glob("*.eval"))
    (run,) = import_inspect(log, tmp_path / "imported")
    turns = [event for event in run.events() if event.type == "model_call"]
    assert len(turns) == 1
    assert turns[0].payload["turn"]["text"] == "so I say it"
    assert turns[0].payload["turn"]["usage"]["gen_ai.usage.output_tokens"] == 4
    assert run.result is not None
    assert run.result["scores"]["includes"] == "C"


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.eval"
    file.write_bytes(b"PK nonsense")
    with pytest.raises(CorruptTraceError, match="not an Inspect log"):
        import_inspect(file, tmp_path / "imported")
    with pytest.raises(UsageError, match="no Inspect log"):
        import_inspect(tmp_path / "none.eval", tmp_path / "imported")


def test_an_imported_run_exports_again(written: Path, tmp_path: Path) -> None:
    (run, *_) = import_inspect(written, tmp_path / "imported")
    again = inspect_log([run])
    write_eval_log(again, str(tmp_path / "again.eval"))
    log = read_eval_log(str(tmp_path / "again.eval"))
    assert log.samples is not None
    assert [event.event for event in log.samples[0].events].count("tool") == 2
