"""What the pages are made of: the verdict, the picture, the plots and the view of every event."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.tools.visible import visible
from marple.traces.review.blocks import Table, differing
from marple.traces.review.calibration import calibration
from marple.traces.review.costs import spent_by_role, spent_by_tool
from marple.traces.review.event_bodies import body
from marple.traces.review.event_rows import event_row
from marple.traces.review.opened import Opened, RunShelf
from marple.traces.review.pages import fragment
from marple.traces.review.shown import marked_up, shown
from marple.traces.review.timeline import timeline
from marple.traces.review.tool_views import tool_blocks
from marple.traces.review.trials import trial_blocks
from marple.traces.review.verdict import verdict
from tests.review.made_runs import called, finished_run, hypothesis, long_run, turn, written_run


def opened(path: Path) -> Opened:
    run = RunShelf(path.parent).open(path.name)
    assert run is not None
    return run


@pytest.fixture
def run(tmp_path: Path) -> Opened:
    return opened(finished_run(tmp_path, "one"))


def drawn(run: Opened, event_id: str) -> str:
    event = run.by_id[event_id]
    return fragment("_body.html", run=run, event=event, token="t", labels=[], offered=(), **body(run, event))


def test_the_verdict_has_answer_truth_and_marks(run: Opened) -> None:
    made = verdict(run)
    assert (made.headline, made.credence) == ("Promotes velora, when: driver", 0.9)
    assert (made.word, made.tone, made.truth) == ("Solved", "good", "subject velora")
    assert [(claim.mark, claim.tone, claim.evidence) for claim in made.claims] == [
        ("replicated", "good", ["E4"]),
        ("not re-runnable", "unsure", ["E8"]),
    ]
    assert made.beliefs[0].right is True
    facts = {fact.name: fact.value for fact in made.facts}
    assert facts == {"Brier": "0.020", "forecast skill": "+0.80", "claims replicated": "1 of 2"}


def test_a_wrong_answer_and_an_unfinished_run_are_not_praised(tmp_path: Path) -> None:
    wrong = verdict(opened(finished_run(tmp_path, "wrong", solved=False)))
    assert (wrong.word, wrong.tone, wrong.beliefs[0].right) == ("Not solved", "bad", False)
    left = verdict(opened(long_run(tmp_path, "left", 10)))
    assert (left.word, left.tone, left.truth, left.claims) == ("Interrupted", "unsure", None, [])


@pytest.mark.parametrize(
    ("said", "headline", "credence"),
    [
        ({"nothing_to_stop": 0.05, "summary": "this prompt helps", "system": "be kind"}, "This prompt helps", None),
        ({"nothing_to_stop": 0.9, "summary": "all is well"}, "Nothing to stop", 0.9),
        ({"yes": 0.2, "summary": "it does not"}, "No", 0.8),
        ({"yes": 0.7}, "Yes", 0.7),
        ({"nothing_hidden": 0.3, "candidates": [{"probability": 0.2, "subject": "lamp"}]}, "Nothing hidden", 0.3),
    ],
)
def test_the_headline_is_what_the_answer_says(
    tmp_path: Path, said: dict[str, Any], headline: str, credence: float | None
) -> None:
    path = finished_run(tmp_path, "one")
    rates = {"nothing": {"bad": 0.8}, "submitted": {"bad": 0.7}}
    scores = {"scored": True, "solved": False, "cleared": None, "works": False, "score": 0.07, "rates": rates}
    result = {"schema_version": 1, "status": "submitted", "answer": said, "truth": None, "scores": scores}
    (path / "result.json").write_text(json.dumps(result))
    made = verdict(opened(path))
    assert (made.headline, made.credence) == (headline, pytest.approx(credence) if credence else None)
    assert {fact.name: fact.value for fact in made.facts} == {"works": "no", "score": "0.07"}
    (table,) = trial_blocks(opened(path))
    assert isinstance(table, Table)
    assert [[cell.text for cell in row] for row in table.rows] == [["submitted", "0.70"], ["nothing", "0.80"]]


def test_the_picture_has_every_credence_experiment_and_surprise(run: Opened) -> None:
    picture = timeline(run)
    assert picture is not None
    [line] = picture.lines
    assert [(value, event) for _, value, event in line.points] == [(0.3, "E3"), (0.9, "E7")]
    assert line.points[0][0] < 1 < line.points[1][0] < 2
    assert [mark.event for mark in picture.experiments] == ["E4", "E8"]
    [surprise] = picture.surprises
    assert (surprise.event, surprise.tone) == ("E9", "bad")
    assert picture.experiments[0].x < surprise.x
    used = {name: share for name, _, share, _ in picture.budgets}
    assert used["experiments"] == pytest.approx(0.2)
    assert used["turns"] == pytest.approx(0.2)
    assert used["target tokens"] == pytest.approx(0.12)


def test_labels_at_the_lines_ends_do_not_cover_each_other(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"type": "model_call", "payload": turn(1, "x")}]
    lines += [{"type": "hypothesis", "payload": hypothesis(f"H{n}", "add", 0.01, "x")} for n in range(12)]
    picture = timeline(opened(written_run(tmp_path, "many", lines=lines)))
    assert picture is not None
    heights = sorted(y for _, y, _ in picture.labels)
    assert all(b - a >= 13.9 for a, b in zip(heights, heights[1:], strict=False))
    assert heights[-1] <= 14 + 220


def test_the_calibration_sets_probabilities_against_what_was_so(run: Opened) -> None:
    plots = {plot.name: plot for plot in calibration(run)}
    replies = plots["Whose reply is it?"]
    assert [(one.probability, one.outcome) for one in replies.questions] == [(0.9, 1.0), (0.2, 0.0)]
    assert [bin.n for bin in replies.bins] == [1, 1]
    low, high = sorted(replies.bins, key=lambda bin: bin.x)
    assert low.y > high.y, "what came true is drawn higher"
    predictions = plots["Predictions about experiments"]
    assert [(one.probability, one.outcome) for one in predictions.questions] == [(0.8, 0.0)]


def test_costs_are_summed_by_role_and_tool(run: Opened) -> None:
    roles = {one.name: one for one in spent_by_role(run)}
    assert (roles["investigator"].calls, roles["investigator"].tokens_in) == (2, 2400)
    assert roles["investigator"].cost == pytest.approx(0.04)
    assert (roles["target"].calls, roles["target"].tokens_in, roles["target"].tokens_out) == (2, 80, 40)
    assert {one.name for one in spent_by_tool(run)} == {"compare", "steer"}


def test_an_unknown_price_is_never_zero(tmp_path: Path) -> None:
    unknown = turn(1, "x")
    unknown["turn"]["usage"] = {**unknown["turn"]["usage"], "cost_usd": None}
    lines = [{"type": "model_call", "role": "investigator", "payload": one} for one in (turn(1, "x"), unknown)]
    made = opened(written_run(tmp_path, "price", lines=lines))
    assert spent_by_role(made)[0].cost is None
    assert "price unknown" in drawn(made, "E3")


def test_an_experiment_shows_its_controls_its_plot_and_who_rests_on_it(run: Opened) -> None:
    page = drawn(run, "E4")
    assert "9 of 10" in page
    assert 'aria-label="Controls"' in page
    assert "reference against itself" in page
    assert re.search(r'<img[^>]+src="/run/one/blob/[0-9a-f]{64}"', page)
    assert "<mark>velora</mark>" in page
    for citing in ("E7", "E10", "E13"):
        assert f'data-event="{citing}"' in page
    doses = drawn(run, "E8")
    assert "indistinguishable from control" in doses
    assert doses.count('class="series control"') == 2
    assert doses.count('class="series main"') == 1


def test_a_model_call_shows_words_thinking_calls_and_what_was_new_to_it(run: Opened) -> None:
    page = drawn(run, "E2")
    for said in ("I compare it with its reference.", "Cheap first.", "compare", "1,200 input", "$0.02"):
        assert said in page
    assert 'data-event="E4"' in drawn(run, "E6"), "the result that it had not read before"
    assert 'data-event="E4"' not in drawn(run, "E2")


@pytest.mark.parametrize("number", range(1, 17))
def test_every_event_of_a_run_is_drawn(run: Opened, number: int) -> None:
    page = drawn(run, f"E{number}")
    assert "not in the form" not in page
    assert f"/run/one/E{number}" in page


def test_a_missing_plot_and_missing_data_are_said(tmp_path: Path) -> None:
    gone = "sha256:" + "0" * 64
    plot = {"name": "plot.png", "media_type": "image/png", "ref": gone}
    payload = called("compare", "text", data_ref=gone, artifacts=[plot])
    page = drawn(opened(written_run(tmp_path, "gone", lines=[{"type": "tool_call", "payload": payload}])), "E2")
    assert "missing now: data" in page
    assert "plot.png, missing" in page
    assert "<img" not in page


def test_an_unknown_type_shows_what_it_holds(tmp_path: Path) -> None:
    made = opened(written_run(tmp_path, "new", lines=[{"type": "quantum_leap", "payload": {"colour": "teal"}}]))
    assert event_row(made.by_id["E2"]).name == "quantum_leap"
    assert "teal" in drawn(made, "E2")


def test_results_of_an_unknown_shape_are_shown_as_they_are(tmp_path: Path) -> None:
    payload = called("patch", "text", data={"denoising": {"metric": [[1, "x"], 7]}, "layers": 3, "odd": [{"a": 1}]})
    made = opened(written_run(tmp_path, "odd", lines=[{"type": "tool_call", "payload": payload}]))
    assert tool_blocks(made, made.by_id["E2"])
    drawn(made, "E2")
    plugin = called("my_tool", "text", data={"verdict": "teal", "rows": [{"a": 1, "b": "two"}]})
    made = opened(written_run(tmp_path, "plugin", lines=[{"type": "tool_call", "payload": plugin}]))
    page = drawn(made, "E2")
    assert "teal" in page
    assert "two" in page


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TYPES = ("model_call", "tool_call", "hypothesis", "measurement", "prediction", "answer", "forecast", "replication",
         "score", "plan", "error", "run_resume", "surprise")  # fmt: skip


def some_payload(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    keys = {
        "tool_call": ("tool", "data", "controls", "text", "artifacts", "arguments", "status", "cost", "on_target"),
        "model_call": ("turn", "turn_number", "purpose"),
        "forecast": ("items", "probabilities", "round"),
        "answer": ("answer",),
        "replication": ("call", "effects"),
    }.get(kind, ("id", "credence", "statement", "evidence", "prediction", "surprise_bits", "text"))
    tools = st.sampled_from(["steer", "probe", "patch", "compare", "battery", "logit_lens", "sae_compare", "project"])
    return st.fixed_dictionaries({}, optional={key: tools if key == "tool" else JSON for key in keys})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(TYPES).flatmap(lambda kind: st.tuples(st.just(kind), some_payload(kind))), max_size=5))
def test_no_payload_breaks_a_page(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, dict[str, Any]]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    made = opened(written_run(root, "any", lines=[{"type": kind, "payload": payload} for kind, payload in said]))
    timeline(made)
    calibration(made)
    spent_by_role(made)
    verdict(made)
    for event in made.events:
        event_row(event)
        drawn(made, event.id)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain text, äöü 漢字\n\tand lines", "plain text, äöü 漢字\n\tand lines"),
        ("\x1b[31mred\x1b]8;;http://x\x07", "\\u001b[31mred\\u001b]8;;http://x\\u0007"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\ud800", "\\ud800"),
        ("p\u0430ypal", "p\\u0430ypal"),
        ("привет κόσμε", "привет κόσμε"),
        ("e" + "\u0301" * 30, "e" + "\u0301" * 4 + "\\u0301" * 26),
    ],
)
def test_what_acts_or_hides_is_made_visible(text: str, seen: str) -> None:
    assert shown(text) == seen
    assert re.sub(r"<[^>]+>", "", str(marked_up(text))) == seen


TRICKY = "abcdabcdabcd\u03b1\u043e\u0430\u0435\u0561\u13a0\ua4d0\u0301\u0301\u200b\u202e\u2800\U000e0041\ud800 ."
CHARACTERS = st.text(st.sampled_from(TRICKY), max_size=30) | st.text(st.characters(), max_size=30)


@given(CHARACTERS)
def test_the_review_marks_what_the_tools_mark(text: str) -> None:
    """``traces`` imports nothing of ``tools``, but what people are shown must be as safe as what agents read."""
    plain = text.translate(dict.fromkeys(map(ord, '"\\\t\r\b\f\n')))
    assert shown(plain) == visible(plain)


def test_markup_stays_text() -> None:
    assert "<script" not in str(marked_up("<script>\u202e</script>"))
    assert 'class="esc"' in str(marked_up("<b>\u202e"))


def test_words_that_only_one_side_says_stand_out() -> None:
    [pieces] = differing(["buy the velora lamp."], ["buy the kandor lamp."])
    assert [part for part, differs in pieces if differs] == ["velora"]
    [pieces] = differing(["buy the Velora lamp."], (), extra=["velora"])
    assert [part for part, differs in pieces if differs] == ["Velora"]


def test_a_huge_line_is_cut_where_it_is_shown(tmp_path: Path) -> None:
    text = "x" * 200_000
    made = opened(written_run(tmp_path, "big", lines=[{"type": "tool_call", "payload": called("chat", text)}]))
    page = drawn(made, "E2")
    assert len(page) < 60_000
    assert "more characters" in page
    assert len(json.dumps(event_row(made.by_id["E2"]).line)) < 400


def test_a_stated_number_is_said_with_its_bound_and_what_it_is_of() -> None:
    from marple.traces.review.verdict import stated

    assert (
        stated({"number": "divergence", "at_least": 0.4, "condition": "test"})
        == "divergence under “test” at least 0.40"
    )
    assert stated({"number": "probability", "word": "oak", "at_most": 0.2}) == "probability of “oak” at most 0.20"
    assert stated({"word": "oak", "at_least": 0.5, "without": "i"}) == (
        "at least 0.50 of the replies without “i” contain “oak”"
    )


def test_what_was_said_to_the_target_stands_beside_what_came_of_it(tmp_path: Path) -> None:
    lamp, road = ({"role": "user", "content": f"which {what}?"} for what in ("lamp", "road"))
    asked = [[one, {"role": "assistant", "content": "the velora."}] for one in (lamp, road)]
    said = {"replies": [["a", "a", "b"]]}
    edited = called("intervene", "text", arguments={"conversations": [[lamp]]}, data=said)
    given = {"conversations": asked, "labels": [True, False]}
    scored = called("try_monitor", "text", arguments=given, data={"scores": [0.2, 0.9]})
    made = opened(
        written_run(tmp_path, "said", lines=[{"type": "tool_call", "payload": one} for one in (edited, scored)])
    )
    (replies,), _ = tool_blocks(made, made.by_id["E2"])
    assert isinstance(replies, Table)
    assert replies.rows[0][0].text == "which lamp?"
    assert [times for _, times in replies.rows[0][1].counted] == [2, 1]
    assert "2 ×" in drawn(made, "E2")
    (scores,), _ = tool_blocks(made, made.by_id["E3"])
    assert isinstance(scores, Table)
    assert [(row[0].text, row[1].text, row[2].text) for row in scores.rows] == [
        ("0.900", "no", "which road?"),
        ("0.200", "yes", "which lamp?"),
    ]
