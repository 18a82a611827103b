"""The target: a causal language model with its tokenizer, and what can be asked of it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jinja2 import TemplateError

from marple.errors import ToolError
from marple.tools.target.generation import Engine, Request
from marple.tools.target.text import quote

__all__ = ["Completion", "Target"]

_BATCH_TOKENS = {"cpu": 8192, "mps": 16384, "cuda": 65536}


@dataclass(frozen=True)
class Completion:
    """One sample."""

    text: str
    """What was generated, special tokens left out."""
    tokens: tuple[int, ...]
    finish: Literal["stop", "length"]
    """``length``: cut at ``max_new_tokens`` or at the end of the context."""
    prompt_tokens: int


class Target:
    """A model under investigation, and beside it perhaps the reference it is compared with.

    Args:
        model: a ``transformers`` causal language model; it is put into evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        reference: a second target.
        batch_tokens: most tokens in one batch; by default it depends on the device.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        reference: Target | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.reference = reference
        budget = batch_tokens or _BATCH_TOKENS.get(self.device.type, 8192)
        self._engine = Engine(self.model, stop_tokens=self._stop_tokens(), batch_tokens=budget)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and continuation together, or None where the model states no limit."""
        length = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return length if isinstance(length, int) and length > 0 else None

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Size, precision and the digest of the weights, as JSON values."""
        config = self.model.config.get_text_config()
        return {
            "architecture": str(config.model_type),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "layers": int(config.num_hidden_layers),
            "d_model": int(config.hidden_size),
            "vocab": int(config.vocab_size),
            "context": self.context,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.device),
            "weights_sha256": self.weights_sha256(),
        }

    def weights_sha256(self) -> str:
        """Digest over names, types, shapes and values of all weights in memory, computed at each call."""
        digest = hashlib.sha256()
        for name, tensor in sorted((*self.model.named_parameters(), *self.model.named_buffers())):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def encode(self, text: str) -> list[int]:
        """Token ids of raw text, with one beginning-of-sequence token if the tokenizer uses one."""
        ids = [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]
        bos = self.tokenizer.bos_token_id
        if self._begins_with_bos and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def render(self, messages: Sequence[Mapping[str, object]], *, prefill: str | None = None) -> list[int]:
        """Token ids of a conversation in the target's chat template, ready for the assistant's turn.

        Args:
            messages: ``role`` (system, user, assistant) and ``content``, ending with a user message.
            prefill: how the assistant's reply begins; the turn is left open behind it.

        Raises:
            ToolError: the chat template refuses the messages.
        """
        turns = [dict(message) for message in messages]
        if prefill:
            turns.append({"role": "assistant", "content": prefill})
        try:
            ids = self.tokenizer.apply_chat_template(
                turns,
                tokenize=True,
                return_dict=False,
                add_generation_prompt=not prefill,
                continue_final_message=bool(prefill),
            )
        except (TemplateError, ValueError) as error:
            roles = ", ".join(str(turn["role"]) for turn in turns)
            raise ToolError(f"the target's chat template refuses these messages ({roles}): {error}") from error
        return [int(token) for token in ids]

    def split(self, prompt: Sequence[int], whole: Sequence[int], continuation: str) -> tuple[list[int], list[int]]:
        """Prompt ids and continuation ids, as the tokenizer reads the continuation behind the prompt.

        Where it would merge the two across the border, or the template changes the continuation, the
        continuation is tokenized on its own.
        """
        start = list(prompt)
        rest = list(whole[len(start) :])
        if list(whole[: len(start)]) == start and rest and self.tokenizer.decode(rest) == continuation:
            return start, rest
        alone = self.tokenizer(continuation, add_special_tokens=False)["input_ids"]
        return start, [int(token) for token in alone]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seeds: Sequence[int],
    ) -> list[Completion]:
        """One sample per prompt, the same whatever else is in the call (in float32).

        Args:
            prompts: token ids of each prompt.
            max_new_tokens: most tokens to generate for each; fewer where the context ends before.
            temperature: 0 is greedy.
            top_p: mass of the nucleus; 1 is all.
            seeds: one per prompt; a row's randomness depends on its own seed alone.

        Raises:
            ToolError: a prompt is empty or fills the context.
            MemoryError: a single row does not fit into memory.
        """
        requests = [
            Request(tuple(prompt), seed, self._room(prompt, max_new_tokens))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        outputs = self._engine.generate(requests, temperature=temperature, top_p=top_p)
        return [
            Completion(self.decode(output.tokens), output.tokens, output.finish, len(request.prompt))
            for request, output in zip(requests, outputs, strict=True)
        ]

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Log-probabilities (nats) of continuations: one list per ``(prompt ids, continuation ids)``.

        Raises:
            ToolError: a prompt is empty, or prompt and continuation do not fit into the context.
            MemoryError: a single pair does not fit into memory.
        """
        for prompt, continuation in pairs:
            self._room(prompt, max(1, len(continuation)), exactly=True)
        return self._engine.score(pairs)

    def quote(self, text: str, *, limit: int | None = None) -> str:
        """Text from the model as a JSON string in which nothing is invisible."""
        return quote(text, special_tokens=self.tokenizer.all_special_tokens, limit=limit)

    @functools.cached_property
    def _begins_with_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos]

    def _stop_tokens(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id
        many = configured if isinstance(configured, (list, tuple)) else [configured]
        return frozenset(int(token) for token in (*many, self.tokenizer.eos_token_id) if token is not None)

    def _room(self, prompt: Sequence[int], wanted: int, *, exactly: bool = False) -> int:
        if not prompt:
            raise ToolError("a prompt has no tokens: give at least one character of text")
        if self.context is None:
            return wanted
        room = self.context - len(prompt)
        if room < (wanted if exactly else 1):
            raise ToolError(
                f"a prompt has {len(prompt)} tokens, which leaves no room for {wanted} more in the target's "
                f"context of {self.context} tokens"
            )
        return min(room, wanted)
