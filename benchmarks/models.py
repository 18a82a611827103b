"""Random Llamas of real shapes, what is asked of them, and a tokenizer that knows numbers only."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.rounds import Clock
from marple.tools.target.target import Target

__all__ = ["SHAPES", "Model", "Shape", "Work"]

_STOP = 2
_TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    d_model: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    context: int = 2048


SHAPES = {
    "tiny": Shape(64, 4, 4, 2, 96, 256),
    "small": Shape(512, 8, 8, 4, 1408, 8192),
    "llama-1b": Shape(2048, 16, 32, 8, 8192, 128_256),
    "llama-8b": Shape(4096, 32, 32, 8, 14_336, 128_256),
}
"""``small`` is what the table is taken with; the last two are those of Llama 3.2 1B and Llama 3.1 8B."""


@dataclass(frozen=True)
class Work:
    """How much is asked for."""

    batch: int = 16
    prompt: int = 64
    new: int = 32
    queue: int = 48
    queue_prompt: tuple[int, int] = (16, 96)
    queue_new: tuple[int, int] = (8, 64)
    sae_tokens: int = 1024
    sae_width: int = 16_384
    sae_k: int = 32
    probe_samples: int = 4000
    probe_width: int = 512

    @classmethod
    def quick(cls) -> Work:
        """Enough to run every line, not to learn anything."""
        return cls(
            4, 12, 4, 8, (4, 12), (2, 8), sae_tokens=64, sae_width=256, sae_k=8, probe_samples=240, probe_width=16
        )


@dataclass
class Model:
    """A random model with its tokenizer and the target made of it."""

    shape: Shape
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    @property
    def clock(self) -> Clock:
        """Processor time says nothing about an accelerator."""
        return "cpu" if self.device == "cpu" else "wall"

    @cached_property
    def plain(self) -> Any:
        """The ``transformers`` model, which nothing is ever hooked to but what a variant adds and removes."""
        shape = self.shape
        config = LlamaConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.d_model,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=False,
            attn_implementation="sdpa",
            bos_token_id=1,
            eos_token_id=_STOP,
            pad_token_id=0,
            # Wide enough that a sample is not one word over and over, in which many a mistake would not show.
            initializer_range=0.9 / shape.d_model**0.5,
            architectures=["LlamaForCausalLM"],
            dtype=self.dtype,
        )
        with torch.random.fork_rng(devices=[]), torch.device(self.device):
            torch.manual_seed(0)
            default = torch.get_default_dtype()
            torch.set_default_dtype(self.dtype)
            try:
                model = LlamaForCausalLM(config).eval().requires_grad_(False)
            finally:
                torch.set_default_dtype(default)
        # Its logit is 0 and never the largest: the check for the end costs what it costs, and nothing ends early.
        model.lm_head.weight.data[_STOP] = 0
        model.generation_config.eos_token_id = _STOP
        model.generation_config.pad_token_id = 0
        return model

    @cached_property
    def tokenizer(self) -> Any:
        """One word a token: ``t17`` is 17. Loaded from a directory, as some peers insist."""
        words = {"<pad>": 0, "<bos>": 1, "<end>": _STOP} | {f"t{at}": at for at in range(3, self.shape.vocab)}
        core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        core.decoder = decoders.WordPiece(prefix="##")
        made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<pad>")
        made.chat_template = _TEMPLATE
        with tempfile.TemporaryDirectory() as folder:
            made.save_pretrained(folder)
            return PreTrainedTokenizerFast.from_pretrained(folder)

    @cached_property
    def target(self) -> Target:
        """Ours, on the same weights as the floor."""
        return Target(self.plain, self.tokenizer)

    def copy(self) -> Any:
        """Modules of its own, on the same weights, for a peer that changes what it is given."""
        tensors = [*self.plain.parameters(), *self.plain.buffers()]
        return copy.deepcopy(self.plain, {id(one): one for one in tensors})

    def prompts(self, count: int, length: int) -> list[list[int]]:
        """Random prompts, other ones at every call."""
        ids = torch.randint(3, self.shape.vocab, (count, length), generator=self.generator)
        return [[int(token) for token in line] for line in ids]

    def vectors(self, count: int) -> Tensor:
        """Random directions ``(count, d_model)``, a third as long as the residual stream at ``steered_layer``."""
        drawn = torch.randn(count, self.shape.d_model, generator=self.generator)
        lengths: Tensor = drawn.norm(dim=-1, keepdim=True)
        return (drawn / lengths * (self._length / 3)).to(self.device, self.dtype)

    @property
    def steered_layer(self) -> int:
        """The layer whose output is steered: the first of the second half."""
        return self.shape.layers // 2

    @cached_property
    def _length(self) -> float:
        with torch.no_grad():
            states = self.plain.model(self.ids(self.prompts(4, 16)), output_hidden_states=True, use_cache=False)
        return float(states.hidden_states[self.steered_layer + 1].float().norm(dim=-1).mean())

    def number(self, low: int, high: int) -> int:
        """A random one of the whole numbers from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def ids(self, prompts: list[list[int]]) -> Tensor:
        """Prompts of one length as ``(batch, position)``."""
        return torch.tensor(prompts, device=self.device)
