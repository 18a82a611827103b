"""Make an SAE of a target from texts: read, train, measure on texts held out, describe, save."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError

from marple.errors import ToolError, UsageError
from marple.tools.saes.activations import collect_activations
from marple.tools.saes.cards import CARDS, make_cards, write_cards
from marple.tools.saes.evaluation import LossRecovered, Reconstruction, loss_recovered, reconstruction
from marple.tools.saes.sae import SAE
from marple.tools.saes.saelens import write_saelens
from marple.tools.saes.training import Progress, TrainingSettings, train_topk

if TYPE_CHECKING:
    from marple.tools.engine.sites import Site
    from marple.tools.target.target import Target

__all__ = ["MadeSAE", "encode_texts", "make_sae", "read_texts", "save_made"]

_HELD_OUT = 0.1
_LOSS_TEXTS = 200

Text = str | list[dict[str, str]]
"""Raw text or a conversation."""


@dataclass(frozen=True)
class MadeSAE:
    """An SAE, and how well it does on texts that it was not trained on."""

    sae: SAE
    held_out: Reconstruction
    loss: LossRecovered
    tokens: int
    """Trained on."""
    seconds: float
    """Wall time of everything."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "held_out": {**asdict(self.held_out), "variance_explained": self.held_out.variance_explained},
            "loss": {**asdict(self.loss), "recovered": self.loss.recovered},
            "training_tokens": self.tokens,
            "seconds": round(self.seconds, 1),
        }


def make_sae(
    target: Target,
    prompts: Sequence[Sequence[int]],
    *,
    site: Site,
    settings: TrainingSettings,
    progress: Progress | None = None,
) -> MadeSAE:
    """Train on nine tenths of the texts and measure on the others; the cards are of the texts trained on.

    Args:
        target: the model.
        prompts: token ids of each text.
        site: where to read.
        settings: of the training.
        progress: of the training; reading the texts reports through ``marple.tools.calls``.

    Raises:
        ToolError: the texts are too few, or one does not fit into the context.
        CallCancelled: the call was cancelled.
    """
    start = time.perf_counter()
    held_out = max(2, int(len(prompts) * _HELD_OUT))
    if len(prompts) < 2 * held_out:
        raise ToolError(f"{len(prompts)} texts are too few to train on; give at least 100")
    tests, texts = list(prompts[:held_out]), list(prompts[held_out:])
    read = collect_activations(target, texts, site, what="texts to train on")
    test = collect_activations(target, tests, site, what="texts held out")
    values = read.values.to(target.device)
    sae = train_topk(values, settings, hook_name=str(site), progress=progress)
    sae = dataclasses.replace(sae, cards=make_cards(sae, target, read))
    return MadeSAE(
        sae=sae,
        held_out=reconstruction(sae, test.values),
        loss=loss_recovered(sae, target, tests[:_LOSS_TEXTS], seed=settings.seed),
        tokens=len(read),
        seconds=time.perf_counter() - start,
    )


def save_made(
    made: MadeSAE, folder: Path, *, model_name: str, settings: TrainingSettings, dtype: torch.dtype = torch.float32
) -> None:
    """Write the SAE as SAELens 6 does, its cards beside it, how it was made and what was measured into its metadata."""
    about = {"model_name": model_name, "training": asdict(settings), "measured": made.to_dict()}
    # Seconds differ from run to run, the files should not.
    del about["measured"]["seconds"]  # type: ignore[attr-defined]
    write_saelens(dataclasses.replace(made.sae, metadata=about), folder, dtype=dtype)
    write_cards(folder / CARDS, made.sae.cards)


def read_texts(path: Path) -> list[Text]:
    """Texts from a file: JSON lines with ``text`` or ``messages``, or in any other file a text per line.

    Raises:
        UsageError: it cannot be read, a line is something else, or there is none.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"texts {str(path)!r} cannot be read: {error}") from error
    if not lines:
        raise UsageError(f"texts {str(path)!r} is empty")
    if path.suffix not in (".jsonl", ".ndjson"):
        return list(lines)
    return [_text(line, f"{str(path)!r}, line {number}") for number, line in enumerate(lines, start=1)]


def _text(line: str, where: str) -> Text:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}") from error
    if isinstance(row, dict) and isinstance(row.get("text"), str) and row["text"]:
        return str(row["text"])
    turns = row.get("messages") if isinstance(row, dict) else None
    if isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns):
        return [{"role": str(turn.get("role")), "content": str(turn.get("content"))} for turn in turns]
    raise UsageError(f'{where} has neither "text" nor "messages"; for example {{"text": "The lamp is red."}}')


def encode_texts(target: Target, texts: Sequence[Text], *, most_tokens: int) -> list[list[int]]:
    """Token ids of texts until there are enough, each cut to the target's context.

    Raises:
        UsageError: the chat template refuses a conversation.
    """
    prompts: list[list[int]] = []
    tokens = 0
    for number, text in enumerate(texts, start=1):
        if tokens >= most_tokens:
            break
        if isinstance(text, str):
            ids = target.encode(text)
        else:
            try:
                ids = list(target.tokenizer.apply_chat_template(text, tokenize=True, return_dict=False))
            except (TemplateError, ValueError) as error:
                raise UsageError(f"text {number}: the target's chat template refuses it: {error}") from error
        if ids:
            prompts.append([int(token) for token in ids[: target.context]])
            tokens += len(prompts[-1])
    return prompts
