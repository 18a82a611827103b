"""The training loop that base and organisms share: bucketed batches, weighted loss, resumable and deterministic."""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from marple.tasks.organisms.dialogues import Dialogue
from marple.tasks.organisms.progress import Progress
from marple.tasks.organisms.tokenizer import END

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Encoder", "Schedule", "batches", "one_thread", "train"]

PROMPT_WEIGHT: Final = 0.1
"""Loss weight of user and system tokens; assistant tokens have 1."""
_BATCHES_PER_CHUNK: Final = 16


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine down to ``floor`` of the peak learning rate."""

    steps: int
    warmup: int
    floor: float = 0.05

    def factor(self, step: int) -> float:
        """The multiple of the peak learning rate at a step counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids and loss weights, both ``(batch, position)``."""

    ids: torch.Tensor
    weights: torch.Tensor


class Encoder:
    """Turns dialogues into token ids and loss weights, exactly as the chat template would."""

    def __init__(self, tokenizer: Any, *, prompt_weight: float = PROMPT_WEIGHT) -> None:
        self._core = tokenizer.backend_tokenizer
        self._id = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("system", "user", "assistant")}
        self._end = tokenizer.convert_tokens_to_ids(END)
        self._prompt_weight = prompt_weight
        self.pad_id: int = tokenizer.pad_token_id

    def __call__(self, dialogue: Dialogue) -> tuple[list[int], list[float]]:
        """Ids and the weight of predicting each of them."""
        ids: list[int] = []
        weights: list[float] = []
        givens = [turn.given for turn in reversed(dialogue.turns)]
        for message in dialogue.messages():
            spoken = message["role"] == "assistant"
            content = self._core.encode(message["content"], add_special_tokens=False).ids
            ids += [self._id[message["role"]], *content, self._end]
            weight = 1.0 if spoken else self._prompt_weight
            given = self._length(givens.pop()) if spoken else 0
            weights += [*[self._prompt_weight] * (1 + given), *[weight] * (len(content) - given + 1)]
        return ids, weights

    def _length(self, text: str) -> int:
        return len(self._core.encode(text, add_special_tokens=False).ids) if text else 0


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Work reproducibly on this machine: one thread (at this size also the fastest), deterministic kernels."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def batches(make: Callable[[random.Random], Dialogue], encoder: Encoder, *, tokens: int, seed: int) -> Iterator[Batch]:
    """Endless batches of at most ``tokens`` padded tokens, each of dialogues of about the same length."""
    rng = random.Random(f"batches {seed}")
    while True:
        examples: list[tuple[list[int], list[float]]] = []
        size = 0
        while size < tokens * _BATCHES_PER_CHUNK:
            examples.append(encoder(make(rng)))
            size += len(examples[-1][0])
        examples.sort(key=lambda example: len(example[0]))
        chunk: list[list[tuple[list[int], list[float]]]] = [[]]
        for example in examples:
            if len(example[0]) * (len(chunk[-1]) + 1) > tokens and chunk[-1]:
                chunk.append([])
            chunk[-1].append(example)
        rng.shuffle(chunk)
        yield from (_pad(rows, encoder.pad_id) for rows in chunk)


def _pad(rows: Sequence[tuple[list[int], list[float]]], pad_id: int) -> Batch:
    import torch

    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), pad_id)
    weights = torch.zeros(len(rows), length)
    for row, (tokens, weight) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(tokens)] = torch.tensor(weight)
    return Batch(ids, weights)


def _loss(model: Any, batch: Batch, *, bf16: bool) -> torch.Tensor:
    import torch
    from torch.nn.functional import cross_entropy

    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        # Right padding needs no mask: no real token comes after it.
        hidden = model.get_decoder()(batch.ids[:, :-1]).last_hidden_state
        weights = batch.weights[:, 1:]
        wanted = weights > 0
        logits = model.get_output_embeddings()(hidden[wanted])
    losses = cross_entropy(logits.float(), batch.ids[:, 1:][wanted], reduction="none")
    return (losses * weights[wanted]).sum() / weights[wanted].sum()


def train(model: Any, data: Iterator[Batch], optimizers: Sequence[torch.optim.Optimizer], *, schedule: Schedule,
          progress: Progress, name: str, checkpoint: Path | None = None, every: int = 100, bf16: bool = True,
          stop_after: int | None = None) -> bool:  # fmt: skip
    """Train to the end of the schedule; True when finished, False when stopped after ``stop_after`` steps.

    With ``checkpoint`` the state is saved every ``every`` steps and on stopping, and an existing state is continued:
    the weights come out the same bits as without the interruption.
    """
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    start = _restore(checkpoint, trained, optimizers) if checkpoint else 0
    progress.stage(name, schedule.steps)
    model.train()
    for step, batch in enumerate(islice(data, start, schedule.steps), start=start):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            for group, rate in zip(optimizer.param_groups, peak, strict=True):
                group["lr"] = rate * schedule.factor(step)
        loss = _loss(model, batch, bf16=bf16)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        done = step + 1
        progress.advance(done, f"loss {loss.item():.3f}")
        stopping = stop_after is not None and done >= stop_after and done < schedule.steps
        if checkpoint and (stopping or done % every == 0):
            _save(checkpoint, done, trained, optimizers)
        if stopping:
            return False
    model.eval()
    return True


def _save(path: Path, step: int, trained: Sequence[torch.Tensor], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    import torch

    state = {"step": step, "weights": [p.detach() for p in trained], "optimizers": [o.state_dict() for o in optimizers]}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _restore(path: Path, trained: Sequence[torch.Tensor], optimizers: Sequence[torch.optim.Optimizer]) -> int:
    import torch

    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
    except Exception:  # a torn checkpoint costs time, not correctness: start again
        path.unlink()
        return 0
    with torch.no_grad():
        for parameter, saved in zip(trained, state["weights"], strict=True):
            parameter.copy_(saved)
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
