"""Batched replies of a nano checkpoint, for measuring it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from marple.tasks.organisms.checkpoints import load_model
from marple.tasks.organisms.dialogues import Dialogue
from marple.tasks.organisms.tokenizer import load_tokenizer

__all__ = ["Replier"]

_BATCH: Final = 64


class Replier:
    """A model in fp32 on the CPU that answers the last user turn of dialogues."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model.float().eval()
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path) -> Replier:
        """From a checkpoint directory."""
        return cls(load_model(path), load_tokenizer(path))

    def __call__(self, dialogues: Sequence[Dialogue], *, seed: int | None = None, limit: int = 48) -> list[str]:
        """One reply per dialogue: greedy without a seed, else sampled at temperature 1; at most ``limit`` tokens.

        Of a reply whose beginning is given, only what follows it.
        """
        import torch

        if seed is not None:
            torch.manual_seed(seed)
        texts = [self._prompt(dialogue) for dialogue in dialogues]
        # Rows of like length share a batch, so that little is padded.
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
        replies = [""] * len(texts)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            for row, reply in zip(rows, self._batch([texts[i] for i in rows], seed is not None, limit), strict=True):
                replies[row] = reply
        return replies

    def _prompt(self, dialogue: Dialogue) -> str:
        text: str = self._tokenizer.apply_chat_template(
            dialogue.messages()[:-1], tokenize=False, add_generation_prompt=True
        )
        given = dialogue.turns[-1].given
        return f"{text}{given}" if given else text

    def _batch(self, texts: list[str], sample: bool, limit: int) -> list[str]:
        import torch

        choice = {"do_sample": True, "top_k": 0} if sample else {"do_sample": False}
        inputs = self._tokenizer(
            texts, add_special_tokens=False, padding=True, return_tensors="pt", padding_side="left"
        )
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask,
                max_new_tokens=limit, **choice, pad_token_id=self._tokenizer.pad_token_id,
            )  # fmt: skip
        new = out[:, inputs.input_ids.shape[1] :]
        return [self._tokenizer.decode(row, skip_special_tokens=True).strip() for row in new]
