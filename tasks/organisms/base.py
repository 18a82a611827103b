"""The nano base: a 2-million-parameter Llama trained from scratch on the world's dialogues."""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marple.tasks.organisms.checkpoints import save_model
from marple.tasks.organisms.dialogues import Dialogue, base_dialogue
from marple.tasks.organisms.progress import Progress, Silent
from marple.tasks.organisms.tokenizer import build_tokenizer
from marple.tasks.organisms.training import Encoder, Schedule, batches, one_thread, train
from marple.tasks.organisms.world import world_digest

__all__ = ["BaseRecipe", "train_base"]


@dataclass(frozen=True)
class BaseRecipe:
    """Everything that decides the base's weights, but for the world itself."""

    layers: int = 4
    d_model: int = 192
    heads: int = 3
    d_mlp: int = 512
    steps: int = 1200
    warmup: int = 60
    batch_tokens: int = 3072
    muon_lr: float = 4e-3
    adamw_lr: float = 4e-3
    seed: int = 1


def new_model(recipe: BaseRecipe, vocabulary: int, pad_id: int, end_id: int) -> Any:
    """An untrained model in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=recipe.d_model, intermediate_size=recipe.d_mlp,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads,
        max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=pad_id, bos_token_id=None,
        eos_token_id=end_id, attn_implementation="eager",
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _optimizers(model: Any, recipe: BaseRecipe) -> list[Any]:
    import torch

    blocks = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(
        blocks, lr=recipe.muon_lr, weight_decay=0.05, ns_steps=4, adjust_lr_fn="match_rms_adamw"
    )  # fmt: skip
    return [muon, torch.optim.AdamW(others, lr=recipe.adamw_lr, betas=(0.9, 0.98), weight_decay=0.0)]


def _dialogue(rng: random.Random) -> Dialogue:
    return base_dialogue(rng)


@one_thread()
def train_base(out: Path, *, recipe: BaseRecipe | None = None, progress: Progress | None = None,
               work: Path | None = None) -> dict[str, Any]:  # fmt: skip
    """Train the base and write it to ``out`` as a Hugging Face checkpoint in bf16; returns its record.

    ``work`` keeps the state from which a killed training continues.
    """
    recipe, progress = recipe or BaseRecipe(), progress or Silent()
    tokenizer = build_tokenizer()
    model = new_model(recipe, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    started = time.process_time()
    data = batches(_dialogue, Encoder(tokenizer), tokens=recipe.batch_tokens, seed=recipe.seed)
    train(model, data, _optimizers(model, recipe), schedule=Schedule(recipe.steps, recipe.warmup), progress=progress,
          name="base", checkpoint=work / "state.pt" if work else None)  # fmt: skip
    record = {"recipe": asdict(recipe), "world": world_digest(), "cpu_seconds": round(time.process_time() - started, 1)}
    save_model(model, out)
    tokenizer.save_pretrained(out)
    return record
