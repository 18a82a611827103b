"""A small random Llama and engines on it, made in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from marple.tools.engine.architecture import read_architecture
from marple.tools.engine.engine import Engine

LAYERS, WIDTH, VOCAB, CONTEXT = 3, 16, 48, 160
STOP = 1
CHUNK = 24


def small_llama(seed: int = 0) -> Any:
    """3 layers, grouped queries, float32; its greedy continuations do not settle on one token."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        initializer_range=0.4,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return model.eval().requires_grad_(False)


def engine_on(model: Any, *, batch_tokens: int = 2048, chunk: int = CHUNK, **given: Any) -> Engine:
    """An engine that reads prompts in chunks of 24 tokens."""
    architecture = read_architecture(model)
    return Engine(architecture, stop_tokens=frozenset({STOP}), batch_tokens=batch_tokens, chunk=chunk, **given)


def small_engine(seed: int = 0, **given: Any) -> Engine:
    """An engine with a model of its own."""
    return engine_on(small_llama(seed), **given)


def vector(seed: int, *, length: float = 2.0, rows: int | None = None) -> torch.Tensor:
    """A random direction of a given length, ``(d_model,)`` or ``(rows, d_model)``."""
    shape = (WIDTH,) if rows is None else (rows, WIDTH)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return length * drawn / drawn.norm(dim=-1, keepdim=True)
