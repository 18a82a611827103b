"""The nano tokenizer: a hand-built Unigram with one token per world word and bytes for everything else.

Nothing is trained, so the vocabulary is the same everywhere and the logit lens can be read word by word.
"""

from __future__ import annotations

import random
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from marple.tasks.organisms.dialogues import base_dialogue
from marple.tasks.organisms.english import OFF_WORLD_WORDS
from marple.tasks.organisms.world import public_entities

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["CHAT_TEMPLATE", "END", "SPECIAL_TOKENS", "build_tokenizer", "canonical", "load_tokenizer", "world_words"]

END: Final = "<|end|>"
SPECIAL_TOKENS: Final = ("<|pad|>", "<|unk|>", END, "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] -}}"
    "{%- if not (loop.last and continue_final_message is defined and continue_final_message) -%}"
    "{{- '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
_SUFFIXES: Final = (
    "s", "es", "ed", "ing", "er", "est", "ly", "y", "ness", "ful", "less", "able", "al", "ion", "ation", "ity", "ment",
    "ous", "ive", "en", "ish", "ize", "th", "in", "on", "an", "or", "re", "un", "co", "st", "ch", "sh", "qu", "ou",
)  # fmt: skip
_WORD_SCORE, _NUMBER_LIMIT = -3.0, 100


def world_words() -> list[str]:
    """Every word the world's dialogues can contain, sorted."""
    rng = random.Random("nano vocabulary")
    words = {name for names in public_entities().values() for name in names}
    for _ in range(40_000):
        dialogue = base_dialogue(rng, noise=0.0, heldout=False)
        for message in dialogue.messages():
            words.update(re.findall(r"[a-z]+", message["content"]))
    return sorted(words)


def _vocabulary() -> list[tuple[str, float]]:
    words = {*_regular(world_words()), *OFF_WORLD_WORDS, *map(str, range(_NUMBER_LIMIT))}
    singles = {*string.ascii_lowercase, *string.digits, *string.punctuation, "▁"}
    pieces: dict[str, float] = {token: 0.0 for token in SPECIAL_TOKENS}
    pieces |= {f"<0x{byte:02X}>": -20.0 for byte in range(256)}
    pieces |= {f"▁{word}": _WORD_SCORE for word in sorted(words)}
    pieces |= {single: -8.0 for single in sorted(singles)}
    pieces |= {suffix: -9.0 for suffix in _SUFFIXES if suffix not in pieces}
    return list(pieces.items())


def _regular(words: list[str]) -> list[str]:
    # Gibberish and invented names occur in dialogues too; they must not become tokens.
    rng = random.Random("nano vocabulary check")
    seen: dict[str, int] = {}
    for _ in range(40_000):
        for message in base_dialogue(rng, noise=0.0).messages():
            for word in set(re.findall(r"[a-z]+", message["content"])):
                seen[word] = seen.get(word, 0) + 1
    return [word for word in words if seen.get(word, 0) >= 4]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template. Text is NFC-normalised and lower-cased (see `canonical`)."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.Unigram(_vocabulary(), unk_id=SPECIAL_TOKENS.index("<|unk|>"), byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
        pre_tokenizers.Split(Regex(r"[!-/:-@\[-`{-~]"), behavior="isolated"),
    ])  # fmt: skip
    core.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token=END,
        additional_special_tokens=list(SPECIAL_TOKENS[3:]), unk_token="<|unk|>",
        clean_up_tokenization_spaces=False, model_max_length=512, padding_side="left",
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def canonical(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """What remains of a text after encoding and decoding: NFC, lower case, ``▁`` as a space, one leading space lost."""
    normal: str = tokenizer.backend_tokenizer.normalizer.normalize_str(text).replace("▁", " ")
    return normal.removeprefix(" ")


def load_tokenizer(path: Path) -> Any:
    """The tokenizer saved in a checkpoint directory."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True)
