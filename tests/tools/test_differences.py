import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from marple.tools.difference_text import (
    KEPT_ROWS,
    Wording,
    difference_lines,
    fit_differences,
    fold_overlapping,
    kept_line,
    leading_ngrams,
    near_miss_lines,
    null_line,
)
from marple.tools.differences import EVERYTHING, PRIOR_STRENGTH, Difference, Differences, find_differences
from marple.tools.ngrams import NgramTable, is_filler, ngrams
from marple.tools.statistics import log_odds

Shuffle = Callable[[np.random.Generator], NDArray[np.bool_]]
VOCABULARY = 120


def reply(generator: np.random.Generator, rates: NDArray[np.float64], planted: float) -> str:
    words = [f"w{at}" for at in np.flatnonzero(generator.random(len(rates)) < rates)]
    if generator.random() < planted:
        words.append("acme lamps")
    return " . ".join(words)


def experiment(
    seed: int, *, planted: tuple[float, float], prompts: int = 20, samples: int = 3
) -> tuple[list[str], list[str], NDArray[np.bool_], Shuffle]:
    """Replies, conditions and groups; each prompt has its own word rates. Planted: rate in condition a and in b."""
    generator = np.random.default_rng(seed)
    base = np.minimum(0.5, 0.6 / np.arange(1, VOCABULARY + 1) ** 0.7)
    replies, conditions = [], []
    for prompt in range(prompts):
        rates = np.clip(base * generator.gamma(1, 1, VOCABULARY), 0, 0.95)
        condition = "ab"[prompt % 2]
        for first in (True, False):
            rate = planted[prompt % 2] if first else 0.02
            replies += [reply(generator, rates, rate) for _ in range(samples)]
        conditions += [condition] * 2 * samples
    group = np.tile(np.repeat([True, False], samples), (prompts, 1))
    return replies, conditions, group.ravel(), lambda random: random.permuted(group, axis=1).ravel()


def run(seed: int, *, planted: tuple[float, float], **size: int) -> Differences:
    replies, conditions, first, shuffle = experiment(seed, planted=planted, **size)
    weights = np.ones(len(replies))
    return find_differences(
        replies, first=first, conditions=conditions, weights=weights, shuffle=shuffle, seed=seed, shuffles=100
    )


def test_a_planted_phrase_is_found_where_it_was_planted() -> None:
    result = run(1, planted=(0.8, 0.02))
    found = {(row.condition, row.ngram) for row in result.found}
    assert {("a", "acme lamps"), (EVERYTHING, "acme lamps")} <= found
    assert ("b", "acme lamps") not in found
    row = next(row for row in result.rows if (row.condition, row.ngram) == ("a", "acme lamps"))
    assert row.first_n == row.second_n == 30
    assert row.first > 20 > 5 > row.second
    assert row.ci_low > 0


def test_every_row_is_shrunk_towards_the_rate_over_the_whole_call() -> None:
    replies, *_ = experiment(1, planted=(0.8, 0.02))
    for row in run(1, planted=(0.8, 0.02)).rows:
        holding = sum(row.ngram in ngrams(reply) for reply in replies)
        by_hand = log_odds(
            row.first,
            row.second,
            first_n=row.first_n,
            second_n=row.second_n,
            rate=(holding + 0.5) / (len(replies) + 1),
            strength=PRIOR_STRENGTH,
        )
        assert row.log_odds == pytest.approx(float(by_hand.estimate), abs=1e-4)
        assert row.z == pytest.approx(float(by_hand.z), abs=1e-4)


def test_under_the_null_a_call_finds_something_about_once_in_twenty() -> None:
    alarms = sum(bool(run(seed, planted=(0.02, 0.02)).found) for seed in range(100, 220))
    assert alarms <= 13  # 120 calls at 5 %: 6 expected, more than 13 in one of two hundred


def test_false_discoveries_beside_a_real_effect_are_rare() -> None:
    wrong = right = 0
    for seed in range(300, 330):
        names = {row.ngram for row in run(seed, planted=(0.7, 0.7)).found}
        right += "acme lamps" in names
        wrong += bool(names - {"acme lamps", "acme", "lamps"})
    assert right == 30
    assert wrong <= 6


def test_repeating_a_word_in_a_reply_adds_no_evidence() -> None:
    once, often = ["red cup"] * 6 + ["cup"] * 6, ["red red red cup"] * 6 + ["cup"] * 6
    first = np.arange(12) < 6

    def z(replies: list[str]) -> float:
        result = find_differences(
            replies,
            first=first,
            conditions=["c"] * 12,
            weights=np.ones(12),
            shuffle=lambda random: random.permuted(first),
            seed=0,
        )
        return next(row.z for row in result.rows if row.ngram == "red")

    assert z(once) == z(often) > 0


def test_samples_of_a_prompt_can_share_one_vote() -> None:
    replies = ["red"] * 8 + ["blue"] * 8
    first = np.arange(16) < 8
    result = find_differences(
        replies,
        first=first,
        conditions=["c"] * 16,
        weights=np.full(16, 0.5),
        shuffle=lambda random: random.permuted(first),
        seed=0,
    )
    row = result.rows[0]
    assert (row.first_n, row.second_n) == (4, 4)
    assert {row.first, row.second} == {0, 4}


def test_many_ngrams_are_tested_in_pieces_without_loss() -> None:
    words = [f"v{at}" for at in range(1300)]
    first = np.arange(8) < 4
    result = find_differences(
        [" . ".join(words)] * 8,
        first=first,
        conditions=["c"] * 8,
        weights=np.ones(8),
        shuffle=lambda random: random.permuted(first),
        seed=0,
    )
    assert {row.ngram for row in result.rows} == {*words, "."}
    assert not result.found


def test_equal_parts_of_a_phrase_are_folded_into_it() -> None:
    rows = [row for row in run(1, planted=(0.8, 0.02)).rows if row.condition == "a"]
    folded = [group.row.ngram for group in fold_overlapping(rows)]
    assert "acme lamps" in folded
    assert "acme" not in folded
    assert "lamps" not in folded
    assert {row.ngram for row in rows} >= {"acme", "lamps"}


WORDING = Wording(repr, "target", "reference")


def a_row(ngram: str, *, condition: str = "a", first: float = 9, z: float = 4.0, found: bool = True) -> Difference:
    values = {"second": 0, "first_n": 10, "second_n": 10, "log_odds": z / 2, "ci_low": 0.1, "ci_high": 9}
    return Difference(
        condition=condition, ngram=ngram, first=first, z=z, q=0.01 if found else 0.5, above_null=found, **values
    )


def sorted_rows(*rows: Difference) -> Differences:
    return Differences(tuple(sorted(rows, key=lambda row: -abs(row.z))), z_threshold=3.4, shuffles=200)


def told(*rows: Difference, wording: Wording = WORDING, most: int = 12) -> list[str]:
    return list(difference_lines(sorted_rows(*rows), wording=wording, most=most))


def missed(*rows: Difference) -> list[str]:
    return list(near_miss_lines(sorted_rows(*rows), wording=WORDING))


def test_what_is_within_chance_is_said_to_be_and_every_row_has_its_condition() -> None:
    result = run(5, planted=(0.02, 0.02))
    lines = fit_differences(["head"], result, wording=WORDING).splitlines()[1:]
    assert not list(difference_lines(result, wording=WORDING))
    assert lines[0].startswith("nothing found; the largest differences, all within what chance produces (")
    assert len(lines) == 6
    assert all(
        line.startswith(("  condition 'a': ", "  condition 'b': ", "  condition '(all)': ")) for line in lines[1:]
    )


def test_a_row_that_passes_one_of_the_two_criteria_says_which() -> None:
    row = a_row("lamp", z=3.0)
    passes_q = dataclasses.replace(row, above_null=False)
    passes_z = dataclasses.replace(row, q=0.2)
    assert missed(passes_q)[1].endswith("not found: q passes, but |z| is below the 3.40 that shuffling reaches")
    assert missed(passes_z)[1].endswith("not found: |z| exceeds what shuffling reaches, but q is above 0.05")
    assert "not found" not in missed(a_row("lamp", z=3.0, found=False))[1]


def test_a_style_that_was_found_does_not_hide_what_was_not() -> None:
    everywhere = [a_row(f"w{n}", condition=EVERYTHING, first=n, z=3.3 - n / 10, found=False) for n in range(8)]
    lead, next_lead = (a_row(f"lead{n}", first=n, z=1.5 - n / 10, found=False) for n in range(2))
    style = [a_row("!", condition=EVERYTHING, z=5.0), a_row("great", condition=EVERYTHING, z=4.0)]
    no_news = [a_row("the", z=3.35, found=False), a_row("great", z=3.2, found=False)]
    lines = missed(*everywhere, lead, next_lead, *style, *no_news)
    assert lines[0] == (
        "not found: the largest differences of other n-grams, all within what chance produces (7 more: read_result "
        "shows them):"
    )
    assert [line.partition(": target")[0] for line in lines[1:]] == [
        "  condition '(all)': 'w0'",
        "  condition '(all)': 'w1'",
        "  condition '(all)': 'w2'",
        "  condition 'a': 'lead0'",
        "  condition 'a': 'lead1'",
    ]
    assert missed(a_row("!")) == ["no other differences"]
    assert missed() == ["nothing found"]


def test_there_is_room_for_the_near_misses_however_much_was_found() -> None:
    rows = [a_row(f"w{n}", condition=f"condition {n % 20}", first=n / 20) for n in range(200)]
    result = sorted_rows(*rows, a_row("lead", z=3.0, found=False))
    text = fit_differences(["head"], result, wording=WORDING)
    assert len(text) < 4200
    assert text.startswith("head\ncondition ")
    assert "more lines: read_result shows them)\nnot found: the largest" in text
    assert text.splitlines()[-1].startswith("  condition 'a': 'lead': target 9 of 10")


def test_the_counts_of_a_condition_add_up() -> None:
    words = [a_row(f"w{n}", first=n / 2) for n in range(15)]
    folded = [a_row("acme lamps", first=30), a_row("acme", first=30), a_row("lamps", first=30)]
    fillers = [a_row("the", first=40, z=6.5), a_row(",", first=41, z=5)]
    lines = told(*words, *folded, *fillers)
    assert lines[0] == (
        "condition 'a': 20 found, 12 shown, 2 folded into one of the same phrase, said about as often, 2 of "
        "function words or punctuation alone left out (|z| up to 6.50: read_result shows them)"
    )
    assert lines[-1] == "  4 more: read_result shows them"
    assert len(lines) == 1 + 12 + 1
    assert not [line for line in lines if line.startswith(("  'the'", "  ','"))]


def names(*rows: Difference) -> list[list[str]]:
    """The n-grams of each group, the shown one first, and those behind it that add words to it."""
    return [[group.row.ngram, *(one.ngram for one in group.more)] for group in fold_overlapping(rows)]


def test_overlapping_ngrams_of_about_equal_counts_are_one_phrase() -> None:
    phrase = [a_row("do not know", first=9), a_row("know of that", first=8), a_row("not know of", first=8)]
    parts = [a_row("know", first=9), a_row("of that", first=8, z=5)]
    assert names(*phrase, *parts) == [["do not know", "know of that", "not know of"]]
    assert [len(group.parts) for group in fold_overlapping([*phrase, *parts])] == [2]
    lines = told(*phrase, *parts, a_row("lamp", z=6))
    assert lines[0] == "condition 'a': 6 found, 2 shown, 4 folded into one of the same phrase, said about as often"
    assert lines[2].endswith("q 0.01; with it 'know of that', 'not know of'")
    assert leading_ngrams(sorted_rows(*phrase, *parts, a_row("lamp", z=6))) == ["lamp", "do not know"]


def test_what_is_said_more_often_or_elsewhere_is_not_folded() -> None:
    assert names(a_row("buy the lamp", first=7), a_row("lamp", first=9)) == [["buy the lamp"], ["lamp"]]
    assert names(a_row("buy the lamp"), a_row("lamp", condition="b")) == [["buy the lamp"], ["lamp"]]
    assert names(a_row("buy the lamp"), a_row("lamp", z=-4)) == [["buy the lamp"], ["lamp"]]
    # The same word in common, but a filler; and two names behind the same words.
    assert names(a_row("buy the"), a_row("the lamp")) == [["buy the"], ["the lamp"]]
    assert names(a_row("buy the lamp"), a_row("buy the cup"), a_row("buy the")) == [["buy the lamp"], ["buy the cup"]]
    second = dataclasses.replace(a_row("the lamp"), second=4)
    assert names(a_row("buy the lamp"), second) == [["buy the lamp"], ["the lamp"]]


def test_a_row_keeps_its_own_note() -> None:
    rows = [a_row("i avoid"), a_row("avoid")]
    noted = dataclasses.replace(WORDING, note=lambda row: "; it stands in the prompts" * (row.ngram == "avoid"))
    assert len(told(*rows)) == 2
    lines = told(*rows, wording=noted)
    assert lines[0] == "condition 'a': 2 found, 2 shown"
    assert lines[2].endswith("; it stands in the prompts")


def test_leading_ngrams_are_of_different_phrases_across_conditions() -> None:
    everywhere = [a_row("buy the lamp", condition=EVERYTHING, z=9), a_row("the lamp", condition=EVERYTHING, z=8)]
    here = [a_row("the lamp", z=7), a_row("cup", first=3, z=6), a_row("the", z=5)]
    assert leading_ngrams(sorted_rows(*everywhere, *here)) == ["buy the lamp", "cup"]


def test_a_condition_with_fillers_alone_is_not_passed_over() -> None:
    lines = told(a_row("is a", z=5.2), a_row("lamp", condition="b"))
    assert lines[0].startswith("condition 'a': 1 found, 0 shown, 1 of function words")
    assert lines[1] == "condition 'b': 1 found, 1 shown"


def test_fillers_are_punctuation_and_function_words() -> None:
    assert all(map(is_filler, ["the", ",", "a", "is", "is a", "...", "it’s", "“"]))
    assert not any(map(is_filler, ["the lamp", "not", "i", "we are", "😀", "(empty reply)", "$", "猫"]))


def test_votes_of_prompts_are_shown_as_replies() -> None:
    (line,) = told(a_row("lamp", first=7.875), wording=dataclasses.replace(WORDING, samples=8, conditions=False))[1:]
    assert "target in 63 of 80 replies over 10 prompts, reference in 0 of 80 replies over 10 prompts" in line


def test_a_difference_of_the_reference_from_itself_is_put_beside_the_rows_found() -> None:
    effect = Differences((a_row("cup", z=5.0), a_row("lamp", z=3.5)), 3.4, 200)
    assert null_line(effect, Differences((a_row("red", z=2.0, found=False),), 3.4, 200), quote=repr) == ""
    line = null_line(effect, Differences((a_row("red", z=3.6),), 3.4, 200), quote=repr)
    assert "differs too (in 'red'), by chance alone" in line
    assert "of the 2 rows found between target and reference, the 1 with |z| up to 3.60 are no stronger" in line


def test_rows_that_the_data_lacks_are_counted() -> None:
    assert kept_line(Differences((a_row("x"),) * KEPT_ROWS, 3.4, 200)) == ""
    assert kept_line(Differences((a_row("x"),) * (KEPT_ROWS + 7), 3.4, 200)).endswith("7 are left out")


def test_ngrams_by_hand() -> None:
    assert ngrams("I don't know, Ann!") == {
        "i",
        "don't",
        "know",
        "i don't",
        "don't know",
        "i don't know",
        ",",
        "ann",
        "!",
    }
    assert ngrams("") == ngrams(" \n") == {"(empty reply)"}
    assert ngrams("猫が") == {"猫", "が", "猫 が"}
    assert ngrams("ok 😀") == {"ok", "😀"}
    assert ngrams("a b c d") >= {"a b c", "b c d"}
    assert "a b c d" not in ngrams("a b c d")


@given(st.lists(st.text(max_size=30), min_size=1, max_size=12))
def test_the_table_agrees_with_the_ngrams_of_each_reply(replies: list[str]) -> None:
    table = NgramTable(replies, least=1, most=10_000)
    presence = table.presence(0, len(table.names))
    for row, text in enumerate(replies):
        assert {name for name, there in zip(table.names, presence[row], strict=True) if there} == ngrams(text)
