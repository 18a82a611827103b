"""What a person and a model see of text that wants to hide, to move the cursor or to pass for a token."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marple.tools.visible import quote, visible
from tests.boundary.hostile import HOSTILE, SPECIAL_TOKENS

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
ODD = st.lists(
    st.sampled_from([*SPECIAL_TOKENS, *HOSTILE, "\u202e", "\x1b[2J", "<", "|", "[", "\ud800", "а", "x"])
).map("".join)
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(ANY_TEXT | ODD)
def test_a_quoted_text_decodes_to_the_text(text: str) -> None:
    decoded = json.loads(quote(text))
    assert decoded.encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


@given(ANY_TEXT | ODD)
def test_nothing_that_cannot_be_seen_is_left(text: str) -> None:
    assert not [c for c in quote(text) if unicodedata.category(c) in UNSEEN]
    assert not [c for c in visible(text) if unicodedata.category(c) in UNSEEN]
    assert {c for c in visible(text, lines=True) if unicodedata.category(c) in UNSEEN} <= {"\n"}


@given(ANY_TEXT | ODD)
def test_no_special_token_survives_and_none_is_made(text: str) -> None:
    shown = quote(text)
    assert not [token for token in SPECIAL_TOKENS if token in shown]


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_are_known_by_their_shape(token: str) -> None:
    assert token not in quote(f"before{token}after")
    assert json.loads(quote(token)) == token


def test_ordinary_text_is_left_alone() -> None:
    text = "1 < 2, a -> b [1] [see] (x) naïve 東京 😀 μm Δx Привет, кофе"
    assert quote(text) == f'"{text}"'
    assert visible(text) == text


def test_letters_of_another_script_inside_a_word_are_shown() -> None:
    assert visible("s\u0443bmit p\u0430ss") == "s\\u0443bmit p\\u0430ss"
    assert visible("\u0441\u0443\u0431") == "\u0441\u0443\u0431"


def test_heaps_of_marks_are_counted_out() -> None:
    assert visible("x" + "\u0301" * 6) == "x" + "\u0301" * 4 + "\\u0301" * 2


def test_a_terminal_keeps_its_lines_when_told_to() -> None:
    assert visible("a\nb\r\t\x1b[0m") == "a\\nb\\r\\t\\u001b[0m"
    assert visible("a\nb\r", lines=True) == "a\nb\\r"
