"""Load and save Hugging Face checkpoint directories without bars or third-party deprecation notices."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["load_model", "quiet", "save_model"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers (ours are drawn), no warnings that libraries aim at each other."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_model(path: Path) -> Any:
    """A causal language model in fp32 on the CPU, with the attention that trains fastest at this size."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet():
        return AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        )


def save_model(model: Any, out: Path) -> None:
    """Write a model as bf16 safetensors with its configuration."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.to(torch.bfloat16).save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)
