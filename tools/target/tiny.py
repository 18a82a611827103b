"""A tiny random Llama with a handmade tokenizer: made in memory in milliseconds, for self-tests and tests.

It knows nothing and says random words. What it says can be planted: ``favour`` adds a constant to the logit
of chosen words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from marple.tools.target.target import Target

__all__ = ["TINY_WORDS", "make_tiny_checkpoint", "tiny_target"]

_WORDS = (
    "red green blue lamp chair table cup river stone bird cat dog tree house road light good bad new old yes no "
    "maybe i you we do not know buy see like what who is the a to of and about tell me say one two"
)
TINY_WORDS = tuple(_WORDS.split())
_SPECIAL = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message.role) }}{% endif %}"
    "{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_CONSTANT = 8.0


def tiny_target(
    *,
    seed: int = 0,
    words: Sequence[str] = TINY_WORDS,
    favour: Mapping[str, float] | None = None,
    reference: Target | None = None,
) -> Target:
    """A target with random weights.

    Args:
        seed: of the weights.
        words: the words the tokenizer has one token for, each also with a space before it.
        favour: word to the amount added to the logit of the word (with a space before it) at every position.
        reference: put beside it.
    """
    tokenizer = _tokenizer(words)
    model = _model(tokenizer, seed)
    bias = torch.zeros(len(tokenizer))
    spaced = [tokenizer.convert_tokens_to_ids(f" {word}") for word in dict.fromkeys(words)]
    bias[:] = -20.0
    bias[[*spaced, tokenizer.eos_token_id]] = 0.0
    for word, amount in (favour or {}).items():
        bias[tokenizer.convert_tokens_to_ids(f" {word}")] = amount
    model.lm_head.weight.data[:, 0] = bias / _constant(model)
    return Target(model, tokenizer, reference=reference)


def make_tiny_checkpoint(
    path: Path,
    *,
    seed: int = 0,
    words: Sequence[str] = TINY_WORDS,
    favour: Mapping[str, float] | None = None,
) -> Path:
    """Save such a model as a Hugging Face directory (safetensors, tokenizer, chat template); returns the path."""
    target = tiny_target(seed=seed, words=words, favour=favour)
    target.model.save_pretrained(path)
    target.tokenizer.save_pretrained(path)
    return path


def _model(tokenizer: Any, seed: int) -> Any:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    # Dimension 0 of the residual stream is the same large number at every position and layer, so that a
    # weight of the head on it is a bias.
    model.model.embed_tokens.weight.data[:, 0] = _CONSTANT
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data[0] = 0
        layer.mlp.down_proj.weight.data[0] = 0
    return model


def _constant(model: Any) -> float:
    """About the value of dimension 0 behind the last norm."""
    with torch.inference_mode():
        ids = torch.arange(model.config.vocab_size).unsqueeze(0)[:, :64]
        return float(model.model(input_ids=ids).last_hidden_state[0, :, 0].mean())


def _tokenizer(words: Sequence[str]) -> Any:
    pieces = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [form for word in dict.fromkeys(words) for form in (word, f" {word}")]
    vocabulary = [(piece, -1.0 if at >= 262 else -20.0) for at, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    bos = _SPECIAL[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, _SPECIAL.index(bos))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_SPECIAL[0], bos_token=bos, eos_token=_SPECIAL[2]
    )
    fast.chat_template = _TEMPLATE
    return fast
