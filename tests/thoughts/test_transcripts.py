import json
import math
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marple.errors import ToolError
from marple.tools.contract import ToolResult, discover_tools
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target
from marple.tools.transcripts.clusters import cluster, shuffled_silhouette, silhouette
from marple.tools.transcripts.corpus import Selection, read_transcripts, terms_of
from marple.tools.transcripts.embedding import TfIdf
from marple.tools.transcripts.full_text import search_full_text

SUBJECTS = {"animals": "cat dog bird tree", "things": "lamp chair table cup", "colours": "red green blue old"}


def write(path: Path, transcripts: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in transcripts), encoding="utf-8")
    return path


def transcript(number: int, subject: str, draw: random.Random) -> dict[str, Any]:
    words = [draw.choice(SUBJECTS[subject].split()) for _ in range(12)] + draw.choices(
        ["see", "like", "know", "tell", "buy"], k=3
    )
    draw.shuffle(words)
    turns = [
        {"role": "user", "content": " ".join(words[:6])},
        {"role": "assistant", "content": " ".join(words[6:]) + (" river stone" if number % 10 == 0 else "")},
    ]
    return {"id": f"t{number}", "messages": turns, "subject": subject, "score": number % 4}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    draw = random.Random(7)
    made = tiny_target()
    names = list(SUBJECTS)
    made.corpus = write(
        tmp_path_factory.mktemp("corpus") / "corpus.jsonl",
        [transcript(number, names[number % 3], draw) for number in range(120)],
    )
    return made


def ask(target: Target, operation: str, seed: int = 1, **arguments: Any) -> ToolResult:
    result = discover_tools()["search_transcripts"].run(target, {"operation": operation, **arguments}, seed=seed)
    json.dumps([result.data, result.controls], allow_nan=False)
    assert len(result.text) <= 4200
    return result


def test_bm25_is_what_the_formula_says(tmp_path: Path) -> None:
    texts = ["a lamp", "lamp lamp b c", "nothing here at all"]
    path = write(tmp_path / "c.jsonl", [{"messages": [{"role": "user", "content": t}]} for t in texts])
    hits, counts, matching = search_full_text(read_transcripts(path), ["lamp"], where={}, most=5)
    assert matching == counts["lamp"].inside == 2
    idf, mean = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5)), 10 / 3

    def score(tf: int, length: int) -> float:
        return idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / mean))

    assert {hit.number: hit.score for hit in hits} == pytest.approx({0: score(1, 2), 1: score(2, 4)})


def test_phrases_are_words_in_a_row_and_case_does_not_matter(target: Target) -> None:
    assert terms_of('Red "Stone  river" red') == ["stone river", "red"]
    assert ask(target, "search", query='"RIVER Stone"').data["matching"] == 12
    assert ask(target, "search", query='"stone river"').data["matching"] == 0
    assert ask(target, "search", query="river", roles=["user"]).data["matching"] == 0


def test_hits_stand_beside_what_the_rest_of_the_corpus_lets_expect(target: Target) -> None:
    result = ask(target, "search", query="cat", where={"subject": ["animals"]})
    count = result.controls["terms"]["cat"]
    assert (count["n"], count["rest_n"], count["rest_count"], count["expected"]) == (40, 80, 0, 0)
    assert count["ci_low"] > 0.5
    assert "expected by the rest (0 of 80): 0.0" in result.text
    hit = result.data["hits"][0]
    assert hit["metadata"]["subject"] == "animals"
    assert "cat" in hit["context"]


def test_counts_by_a_field(target: Target) -> None:
    groups = ask(target, "count", query="cat river", group_by="subject").data["groups"]
    assert set(groups) == set(SUBJECTS)
    assert groups["animals"]["cat"]["share"] > 0.8
    assert groups["things"]["cat"]["count"] == 0
    assert groups["things"]["river"]["ci_low"] < 0 < groups["things"]["river"]["ci_high"]


def test_a_sample_is_seeded_uniform_and_filtered(target: Target) -> None:
    first, again, other = (ask(target, "sample", seed=s, limit=5).data["hits"] for s in (1, 1, 2))
    assert first == again != other
    drawn = [hit["number"] for s in range(60) for hit in ask(target, "sample", seed=s, limit=4).data["hits"]]
    assert len(set(drawn)) > 80
    assert 45 < np.mean(drawn) < 75
    assert {h["metadata"]["score"] for h in ask(target, "sample", where={"score": ["1", "2"]}).data["hits"]} == {
        "1",
        "2",
    }


def test_a_sample_shows_question_and_reply_and_little_of_the_system_prompt(tmp_path: Path) -> None:
    turns = [("system", "be kind " * 40), ("user", "hello"), ("assistant", "hi"), ("user", "why?"), ("assistant", "")]
    turns[-1] = ("assistant", "because " * 40 + "nymar")
    said = {"id": "t1", "messages": [{"role": role, "content": text} for role, text in turns]}
    alone = {"id": "t2", "messages": [{"role": "user", "content": "only asked"}]}
    made = tiny_target()
    made.corpus = write(tmp_path / "c.jsonl", [said, alone])
    result = ask(made, "sample")
    assert result.text.startswith("all 2 transcripts:\n")
    first, second = (hit["context"] for hit in result.data["hits"])
    system, question, reply = first.split(" | ")
    assert system.startswith("system: be kind")
    assert system.endswith("\u2026")
    assert len(system) == len("system: ") + 50
    assert question == "user: why?"
    assert reply.startswith("assistant: because because")
    assert reply.endswith("\u2026")
    assert second == "user: only asked"
    assert ask(made, "sample", roles=["user"]).data["hits"][0]["context"] == "user: why?"
    assert ask(made, "sample", roles=["tool"]).data["hits"][0]["context"] == "(no turns)"
    assert ask(made, "sample", limit=1).text.startswith("1 of 2 transcripts, drawn at random:")


def test_read_transcripts_show_no_empty_metadata_and_say_that_a_turn_is_empty(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": ""}]
    made = tiny_target()
    made.corpus = write(
        tmp_path / "c.jsonl", [{"id": "t1", "messages": turns}, {"id": "t2", "messages": turns, "x": 1}]
    )
    result = ask(made, "read", query="t1 t2")
    assert result.text.splitlines()[:3] == ['["t1"]', '  user: "hello"', "  assistant: (empty)"]
    plain, labelled = result.data["transcripts"]
    assert plain == {"id": "t1", "metadata": {}, "messages": turns}
    assert labelled["metadata"] == {"x": "1"}


def test_a_semantic_search_finds_the_subject_without_the_word(target: Target) -> None:
    hits = ask(target, "search", query="bird tree", mode="semantic", limit=20)
    subjects = [hit["metadata"]["subject"] for hit in hits.data["hits"]]
    assert subjects == ["animals"] * 20
    assert hits.data["hits"][0]["score"] > hits.controls["cosine_median"] + 0.3


def test_clusters_are_the_subjects_with_their_words(target: Target) -> None:
    result = ask(target, "cluster")
    groups = result.data["groups"]
    assert [group["size"] for group in groups] == [40, 40, 40]
    for group in groups:
        assert {number % 3 for number in group["members"]} == {group["members"][0] % 3}
        subject = list(SUBJECTS)[group["members"][0] % 3]
        assert {one["word"] for one in group["words"][:4]} == set(SUBJECTS[subject].split())
    assert result.controls["silhouette"] > result.controls["shuffled_silhouette"] + 0.2


def test_the_targets_own_activations_can_be_the_space(target: Target) -> None:
    result = ask(target, "cluster", embedding="activations", groups=3, layer=0)
    assert "blocks.0.hook_resid_post" in result.text
    purity = [np.bincount([number % 3 for number in group["members"]]).max() for group in result.data["groups"]]
    assert sum(purity) > 100
    assert result.cost.prompt_tokens > 120 * 15


def test_no_groups_are_found_where_there_are_none() -> None:
    points = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    made = cluster(points, [4], seed=1)
    assert made.silhouette < shuffled_silhouette(points, 4, seed=1) + 0.05
    apart = points + np.repeat(np.eye(8, dtype=np.float32)[:3] * 12, 100, axis=0)
    assert sorted(np.bincount(cluster(apart, range(2, 7), seed=1).labels)) == [100, 100, 100]


def test_silhouette_of_two_pairs() -> None:
    points = np.array([[0.0], [1.0], [10.0], [11.0]], dtype=np.float32)
    inner, outer = 1.0, [10.5, 9.5, 9.5, 10.5]
    expected = np.mean([(b - inner) / b for b in outer])
    assert silhouette(points, np.array([0, 0, 1, 1]), seed=0) == pytest.approx(expected, abs=1e-6)


def test_a_rare_word_weighs_more_by_the_inverse_of_its_document_frequency() -> None:
    space = TfIdf(["lamp cup", "lamp cup cup", "lamp dog", "dog", "bird", "tree"], seed=1)
    row = space._weights(["lamp lamp dog"]).block(0, 1)[0]
    raw = {"lamp": (1 + math.log(2)) * math.log(6 / 3), "dog": math.log(6 / 2)}
    length = math.hypot(*raw.values())
    assert set(space.vocabulary) == {"lamp", "cup", "dog"}
    assert {word: row[at] for word, at in space.vocabulary.items() if row[at]} == pytest.approx(
        {word: value / length for word, value in raw.items()}, rel=1e-5
    )


def test_the_randomised_svd_spans_what_the_exact_one_does() -> None:
    draw = random.Random(1)
    texts = [" ".join(draw.choices([f"{chr(97 + n % 5)}word{n % 40}" for n in range(60)], k=20)) for n in range(90)]
    space = TfIdf(texts, seed=3)
    weights = space._weights(texts).block(0, 90)
    exact = np.linalg.svd(weights, full_matrices=False)[1][: len(space._basis.T)]
    assert np.linalg.norm(weights @ space._basis) == pytest.approx(float(np.linalg.norm(exact)), rel=1e-4)
    assert np.abs(space.embed(texts) - space.points).max() < 1e-4


def test_ten_thousand_transcripts_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(10_000):
            content = f"word{number % 97} word{number % 31} " * 60
            file.write(json.dumps({"messages": [{"role": "user", "content": content}]}) + "\n")
    made = tiny_target()
    made.corpus = path
    tracemalloc.start()
    assert ask(made, "search", query="word3").data["n"] == 10_000
    assert ask(made, "sample").data["n"] == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 5_000_000
    assert peak < 3_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operation": "search"}, "has no words"),
        (
            {"operation": "search", "query": "cat", "where": {"subject": ["plants"]}},
            "no transcript meets it; .*animals",
        ),
        ({"operation": "count", "query": "cat", "group_by": "model"}, "no transcript has the field 'model'.*subject"),
        ({"operation": "read", "query": "t1 nobody"}, "no transcript has the id nobody"),
        ({"operation": "cluster", "groups": 50, "where": {"score": ["1"]}}, "30 transcripts give at most 15"),
        ({"operation": "find"}, "operation is"),
    ],
)
def test_bad_arguments_are_refused(target: Target, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        discover_tools()["search_transcripts"].run(target, arguments, seed=1)


@pytest.mark.parametrize("line", ["{", "[]", '{"messages": 3}', '{"messages": [{"role": "user"}]}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"messages": []}\n\n' + line + "\n")
    with pytest.raises(ToolError, match="line 3 of the corpus is not a transcript"):
        list(read_transcripts(path))


def test_content_in_parts_counts_and_hidden_characters_are_shown(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "lamp \u202e<|end|>"}, {"type": "image", "url": "x"}]
    path = write(tmp_path / "parts.jsonl", [{"id": 5, "messages": [{"role": "user", "content": parts}], "ok": True}])
    assert list(Selection(path)) == ["lamp \u202e<|end|>"]
    made = tiny_target()
    made.corpus = path
    shown = ask(made, "read", query="5").text
    assert "\u202e" not in shown
    assert "<|end|>" not in shown
