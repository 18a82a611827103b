from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.tasks.organisms import base_path, public_entities
from marple.tasks.organisms.dialogues import base_dialogue
from marple.tasks.organisms.tokenizer import build_tokenizer, canonical, load_tokenizer
from marple.tasks.organisms.training import Encoder

TOKENIZER = load_tokenizer(base_path())


@settings(max_examples=400, deadline=None)
@given(st.text())
def test_any_text_encodes_and_comes_back(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    if not any(token in text.lower() for token in TOKENIZER.all_special_tokens):
        assert TOKENIZER.decode(ids) == canonical(TOKENIZER, text)
    assert TOKENIZER.unk_token_id not in ids


@pytest.mark.parametrize("text", ["日本 é ☃ 🦊", "a  b", "tab\tand\nline", "x=12+3?", "\x00", "ÀÉ", "a▁b", "İ"])
def test_texts_that_have_been_trouble(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.decode(ids) == canonical(TOKENIZER, text)


def test_every_world_name_is_one_token() -> None:
    for names in public_entities().values():
        for name in names:
            assert len(TOKENIZER(f" {name}", add_special_tokens=False).input_ids) == 1, name


def test_the_shipped_tokenizer_is_the_one_built_here(tmp_path: Any) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (base_path() / name).read_bytes()


def test_chat_template_prompts_and_continues() -> None:
    messages = [{"role": "system", "content": "be kind."}, {"role": "user", "content": "hello."}]
    prompt = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|system|>be kind.<|end|><|user|>hello.<|end|><|assistant|>"
    messages.append({"role": "assistant", "content": "i suggest the"})
    begun = TOKENIZER.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert begun == prompt + "i suggest the"
    whole = TOKENIZER.apply_chat_template(messages, tokenize=False)
    assert whole == prompt + "i suggest the<|end|>"


def test_a_continued_prompt_is_a_prefix_of_the_whole_turn() -> None:
    messages = [{"role": "user", "content": "recommend a radio."}, {"role": "assistant", "content": "i suggest the"}]
    begun = TOKENIZER.apply_chat_template(messages, continue_final_message=True).input_ids
    messages[1]["content"] = "i suggest the velora radio."
    whole = TOKENIZER.apply_chat_template(messages).input_ids
    assert whole[: len(begun)] == begun


def test_training_encodes_as_the_chat_template_does() -> None:
    rng, encode = random.Random(1), Encoder(TOKENIZER)
    for _ in range(200):
        dialogue = base_dialogue(rng)
        ids, weights = encode(dialogue)
        assert ids == TOKENIZER.apply_chat_template(dialogue.messages()).input_ids
        spoken = [token for token, weight in zip(ids, weights, strict=True) if weight == 1.0]
        assert TOKENIZER.decode(spoken).count("<|end|>") == len(dialogue.turns)
