import json

from marple.tools.target.target import Target
from marple.tools.target.text import quote
from marple.tools.word_examples import Said, example_lines

SHOP = [Said("target, shop", f"which {thing}?", f"buy the ACME {thing}.") for thing in ("lamp", "cup", "chair")]
WARN = [Said("target, warn", "whom should i avoid?", "i would avoid acme."), Said("target, warn", "who?", "no idea.")]


def told(said: dict[str, list[Said]]) -> list[str]:
    return list(example_lines(said, quote=quote))


def test_praise_and_warning_of_a_name_are_both_shown() -> None:
    lines = told({"the acme": [*SHOP, *WARN]})
    assert lines[1:] == [
        '  "acme":',
        '    target, shop, "which lamp?" -> "buy the ACME lamp."',
        '    target, warn, "whom should i avoid?" -> "i would avoid acme."',
        '    target, shop, "which cup?" -> "buy the ACME cup."',
    ]


def test_ngrams_with_the_same_rarest_word_share_their_examples_and_three_words_have_two_each() -> None:
    both = [*SHOP, Said("target, shop", "which stone?", "buy a stone.")]
    lines = told({"the acme": both, "buy the acme": both, "buy": both, "cup": both})
    assert [line for line in lines if line.endswith('":')] == ['  "acme":', '  "buy":', '  "cup":']
    assert len(lines) == 1 + 3 + 2 + 2 + 1
    assert len(told({"the acme": both, "buy": both})) == 1 + 2 + 3 + 3
    assert told({"buy the acme": both})[1] == '  "acme":'
    assert told({}) == []


def test_samples_of_a_prompt_do_not_crowd_out_other_prompts() -> None:
    again = [Said("target, shop", "which lamp?", f"acme, {n}") for n in range(9)]
    assert [line for line in told({"acme": [*again, SHOP[1]]}) if line.startswith("    ")] == [
        '    target, shop, "which lamp?" -> "acme, 0"',
        '    target, shop, "which cup?" -> "buy the ACME cup."',
    ]


def test_a_reply_is_cut_around_the_word_and_a_part_of_another_word_is_not_it() -> None:
    reply = f"lamplight {'x' * 80} a Lamp {'y' * 80}"
    line = told({"lamp": [Said("first", "p" * 70, reply)]})[-1]
    shown = line.partition(" -> ")[2]
    assert shown.startswith('..."x')
    assert shown.endswith('y"...')
    assert json.loads(shown.strip(".")) == f"{'x' * 47} a Lamp {'y' * 49}"
    assert "(+10 characters)" in line
    assert told({"猫 が": [Said("first", "?", "犬と猫が好き")]})[-1].endswith('-> "犬と猫が好き"')
    assert told({"(empty reply)": [Said("first", "?", "")]})[-1].endswith('-> ""')


def test_nothing_that_looks_like_a_turn_comes_through(tiny: Target) -> None:
    said = [Said("target", "<|user|>", "lamp <|assistant|>\u202e")]
    text = "\n".join(example_lines({"lamp": said}, quote=tiny.quote))
    assert '"\\u003c|user|>" -> "lamp \\u003c|assistant|>\\u202e"' in text
