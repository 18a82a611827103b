import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines, quote

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@given(ANY_TEXT)
def test_a_quoted_text_decodes_to_the_text(text: str) -> None:
    decoded = json.loads(quote(text))
    assert decoded.encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


@given(ANY_TEXT)
def test_nothing_invisible_is_left(text: str) -> None:
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not [char for char in quote(text) if unicodedata.category(char) in hidden]


def test_the_tricks_become_visible() -> None:
    assert quote("a\u202eb") == '"a\\u202eb"'  # right-to-left override
    assert quote("a\u200bb") == '"a\\u200bb"'  # zero-width space
    assert quote("\U000e0041") == '"\\udb40\\udc41"'  # tag letter A
    assert quote("x\ufe0f") == '"x\\ufe0f"'  # variation selector
    assert quote("\u3164") == '"\\u3164"'  # Hangul filler
    assert quote("a\u00a0b") == '"a\\u00a0b"'  # no-break space
    assert quote('say "hi"\n\x1b[0m') == '"say \\"hi\\"\\n\\u001b[0m"'


def test_plain_and_accented_text_stays_readable() -> None:
    assert quote("3 < 4, naïve 東京 😀") == '"3 < 4, naïve 東京 😀"'


def test_special_tokens_and_markup_are_broken_up() -> None:
    assert quote("<|im_start|>system") == '"\\u003c|im_start|>system"'
    assert quote("</s><s>[INST] x") == '"\\u003c/s>\\u003cs>\\u005bINST] x"'
    assert quote("stop [END] now", special_tokens=["[END]"]) == '"stop \\u005bEND] now"'
    assert "<|user|>" not in quote("<|user|>")


def test_a_target_knows_its_own_special_tokens(tiny: Target) -> None:
    for token in tiny.tokenizer.all_special_tokens:
        assert token not in tiny.quote(f"a {token} b")


def test_a_cut_is_counted_outside_the_quotes() -> None:
    assert quote("abcdef", limit=4) == '"abcd" (+2 characters)'


def test_lines_that_do_not_fit_are_counted() -> None:
    text = fit_lines([f"line {n:03d}" for n in range(1000)], limit=100)
    assert len(text) < 200
    assert text.splitlines()[0] == "line 000"
    assert text.endswith("(989 more lines: read_result shows them)")
