import pytest
from hypothesis import given
from hypothesis import strategies as st

from marple.errors import ToolError
from marple.tools.statistics import newcombe_interval
from marple.tools.word_counts import Cell, count_ngram, count_word, spread_line, word_lines

CELLS = [
    Cell(
        "shop", ["A lamp.", "LAMP's", "lamplight", "no"], ["a  table\nlamp", "", "", ""], ["which lamp?", "which cup?"]
    ),
    Cell("other", ["x"] * 4, ["y"] * 4, ["who?"]),
]


def test_whole_words_are_counted_in_any_case_in_every_condition() -> None:
    shop, other = count_word("Lamp", CELLS)
    assert (shop.first, shop.first_n, shop.second, shop.second_n) == (2, 4, 1, 4)
    assert (shop.prompts, shop.prompts_n) == (1, 2)
    assert (shop.low, shop.high) == newcombe_interval(2, 1, first_n=4, second_n=4)
    assert (other.condition, other.first, other.second, other.prompts) == ("other", 0, 0, 0)


def test_phrases_symbols_and_unspaced_scripts_are_counted() -> None:
    assert count_word(" table lamp ", CELLS)[0].second == 1
    cell = Cell("c", ["猫が好き", "(yes!)", "a.b", "axb"], ["z"], ["p"])
    assert [count_word(word, [cell])[0].first for word in ("猫", "yes", "!", "a.b")] == [1, 1, 1, 1]


@given(st.text(min_size=1, max_size=12))
def test_a_word_is_found_in_itself(word: str) -> None:
    cell = Cell("c", [f"so {word} then"], ["-"], ["p"])
    if word.strip():
        assert count_word(word, [cell])[0].first == 1
    else:
        with pytest.raises(ToolError, match="only white space"):
            count_word(word, [cell])


def test_samples_of_a_prompt_share_one_vote_in_the_interval_alone() -> None:
    (alone,), (shared,) = (
        count_word("yes", [Cell("c", ["yes"] * 12 + ["no"] * 4, ["no"] * 16, ["p"], votes)]) for votes in (1, 4)
    )
    assert (alone.first, alone.first_n) == (shared.first, shared.first_n) == (12, 16)
    assert shared.low < alone.low < alone.high < shared.high
    assert (shared.low, shared.high) == newcombe_interval(3, 0, first_n=4, second_n=4)


def test_silence_is_said() -> None:
    counts = {word: count_word(word, CELLS) for word in ("lamp", "zebra")}
    lines = list(word_lines(counts, quote=repr, label=str.upper, first="target", second="reference"))
    measured = "target 2 of 4 (50%), reference 1 of 4 (25%), +25 [-32, +66]"
    assert lines[1] == "  'lamp': SHOP 50% v 25%; OTHER 0% v 0%"
    assert lines[2] == "  said in no reply (target 0 of 4 (0%), reference 0 of 4 (0%), +0 [-49, +49]): 'zebra'"
    assert lines[4] == f"  'lamp', SHOP: {measured}; it stands in 1 of the 2 prompts"
    assert len(lines) == 5


def test_rows_in_which_nobody_says_a_word_are_counted_and_not_shown() -> None:
    cells = [*CELLS, *(Cell(f"c{n}", ["x"], ["lamp" if n == 1 else "y"], ["p"]) for n in range(4))]
    counts = {word: count_word(word, cells) for word in ("lamp", *(f"zebra{n}" for n in range(12)), "cup")}
    lines = list(word_lines(counts, quote=repr, label=str, first="target", second="reference"))
    at = lines.index(
        "these row by row, the largest difference first (4 with 0 in both left out: read_result shows them):"
    )
    assert [line.partition(":")[0] for line in lines[at + 1 :]] == ["  'lamp', c1", "  'lamp', shop"]
    assert lines[1].startswith("the intervals are not corrected for the 2 rows of")
    assert lines[at - 1] == "    nor 'zebra10', 'zebra11', 'cup' (it stands in 1 of the 2 prompts)"
    assert "".join(lines).count("'zebra") == 12
    assert all(len(rows) == 6 for rows in counts.values())


def shares(condition: str, first: dict[str, int], second: dict[str, int]) -> Cell:
    """Twenty replies on each side, so many of which hold each word."""

    def side(words: dict[str, int]) -> list[str]:
        return [" ".join(word for word in words if at < words[word]) for at in range(20)]

    return Cell(condition, side(first), side(second), ["p"])


def test_words_are_summed_up_and_their_rows_ordered_by_the_size_of_the_difference() -> None:
    cells = [
        shares("all", {"cup": 5, "elena": 4}, {"cup": 5, "elena": 2}),
        shares("shop", {"cup": 6, "elena": 2}, {"cup": 5, "elena": 2}),
        shares("real", {"cup": 4, "elena": 2}, {"cup": 5, "elena": 8}),
    ]
    counts = {word: count_word(word, cells) for word in ("cup", "elena")}
    lines = list(word_lines(counts, quote=str, label=str, first="target", second="reference"))
    assert lines[2:4] == [
        "  cup: all 25% v 25%; largest: shop 30% v 25%",
        "  elena: all 20% v 10%; largest: real 10% v 40%",
    ]
    assert [line.partition(":")[0].strip() for line in lines[5:]] == [
        *("elena, real", "elena, all", "cup, shop", "cup, real", "cup, all", "elena, shop")
    ]


def test_the_intervals_say_for_how_many_rows_they_are_not_corrected() -> None:
    for cells, rows in ((CELLS[:1], 1), ([CELLS[0]] * 2, 4)):
        counts = {word: count_word(word, cells) for word in ("lamp", "no", "zebra")[: 1 if rows == 1 else 3]}
        lines = list(word_lines(counts, quote=repr, label=str, first="target", second="reference"))
        said = [line for line in lines if line.startswith(f"the intervals are not corrected for the {rows} rows of")]
        assert len(said) == (rows > 1)


def test_one_ngram_over_many_conditions_is_cut_with_a_count() -> None:
    cells = [Cell(f"c{n}", ["lamp's"], ["lamp"], ["p"]) for n in range(15)]
    line = spread_line("lamp", count_ngram("lamp", cells), quote=repr, label=str)
    assert line.startswith("  'lamp': c0 0 of 1 and 1 of 1; c1 ")
    assert line.endswith("c7 0 of 1 and 1 of 1; 7 more conditions: read_result shows them")


def test_an_ngram_is_shown_where_it_differs_most_and_not_where_nobody_says_it() -> None:
    cells = [shares(f"c{n}", {"cup": 5 + 3 * n}, {"cup": 5}) for n in range(3)]
    silent = [shares(f"s{n}", {"cup": 0}, {"cup": 0}) for n in range(4)]
    line = spread_line("cup", count_ngram("cup", [*silent[:2], *cells, *silent[2:]]), quote=str, label=str)
    assert (
        line
        == "  cup: c2 11 of 20 and 5 of 20; c1 8 of 20 and 5 of 20; c0 5 of 20 and 5 of 20; in 4 more none of either"
    )
    assert spread_line("cup", count_ngram("cup", cells), quote=str, label=str).startswith(
        "  cup: c0 5 of 20 and 5 of 20; c2"
    )
