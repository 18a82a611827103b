"""Small random models of every family, as different from each other as the family's configuration allows."""

from __future__ import annotations

from typing import Any

import torch
import transformers

WINDOW = 6
VOCAB, WIDTH, LAYERS, CONTEXT = 40, 16, 3, 64

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.35,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**_GROUPED, "tie_word_embeddings": False}),
    "llama tied": ("Llama", {**_GROUPED, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen2 with windows": (
        "Qwen2",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": WINDOW, "layer_types": _ALTERNATING},
    ),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 8}),
    "gemma": ("Gemma", {**_GROUPED, "head_dim": 8, "num_key_value_heads": 1}),
    "gemma2": (
        "Gemma2",
        {
            **_GROUPED,
            "head_dim": 8,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 8,
            "tie_word_embeddings": False,
            "final_logit_softcapping": 4.0,
            "attn_logit_softcapping": 3.0,
        },
    ),
    "gemma3_text": (
        "Gemma3",
        {
            **_GROUPED,
            "head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": _ALTERNATING,
            "query_pre_attn_scalar": 8,
            "tie_word_embeddings": False,
        },
    ),
    "gemma3": (
        "Gemma3",
        {
            "text_config": {
                **_GROUPED,
                "head_dim": 8,
                "sliding_window": WINDOW,
                "layer_types": _ALTERNATING,
                "query_pre_attn_scalar": 8,
            },
            "vision_config": {
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 8,
                "patch_size": 4,
            },
            "mm_tokens_per_image": 4,
        },
    ),
    "mistral": ("Mistral", {**_GROUPED, "head_dim": 4, "sliding_window": WINDOW}),
    "mistral without window": ("Mistral", {**_GROUPED, "head_dim": 4, "sliding_window": None}),
    "olmo": ("Olmo", {**_GROUPED, "clip_qkv": 1.0}),
    "olmo2": ("Olmo2", _GROUPED),
    "olmo3": ("Olmo3", {**_GROUPED, "sliding_window": WINDOW, "layer_types": _ALTERNATING}),
    "gpt2": (
        "GPT2",
        {
            "vocab_size": VOCAB,
            "n_embd": WIDTH,
            "n_layer": LAYERS,
            "n_head": 4,
            "n_positions": CONTEXT,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "initializer_range": 0.35,
        },
    ),
    "gpt_neox parallel": ("GPTNeoX", {**_COMMON, "use_parallel_residual": True, "initializer_range": 0.7}),
    "gpt_neox sequential": ("GPTNeoX", {**_COMMON, "use_parallel_residual": False, "initializer_range": 0.7}),
}


def random_model(name: str, *, attention: str = "eager", seed: int = 0) -> Any:
    """A model in evaluation mode whose every parameter is random, norms and biases included."""
    family, given = CONFIGURATIONS[name]
    prefix = "Gemma3Text" if name == "gemma3_text" else family
    config = getattr(transformers, f"{prefix}Config")(**given, attn_implementation=attention)
    kind = {"gpt2": "GPT2LMHeadModel", "gemma3": "Gemma3ForConditionalGeneration"}.get(name, f"{family}ForCausalLM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, kind)(config)
        for tensor in model.parameters():
            if tensor.ndim == 1:
                tensor.data += 0.3 * torch.randn_like(tensor)
    # Nothing ends a sample, so that all are of one length.
    model.generation_config.eos_token_id = None
    return model.eval().requires_grad_(False)
