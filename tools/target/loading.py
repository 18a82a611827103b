"""Load a Hugging Face causal language model: safetensors only, no code from the model directory."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.errors import TargetRefusedError
from marple.tools.target.checkpoint import Checkpoint, check_target_dir, find_target

if TYPE_CHECKING:
    import torch

    from marple.tools.target.target import Target

__all__ = ["check_target_dir", "find_target", "load_target"]

# On a CPU, fused attention costs more than it saves in models up to about this width.
_EAGER_WIDTH = 512


def load_target(
    path: Path | str,
    *,
    reference: Path | str | None = None,
    base: Path | str | None = None,
    share_base: bool = False,
    device: str = "cpu",
    dtype: torch.dtype | str | None = None,
) -> Target:
    """Load a target, and the reference it is compared with.

    Args:
        path: a model directory, a PEFT adapter directory, or a hub id of either.
        reference: the same kinds; it may lack a chat template and then gets the target's.
        base: the model an adapter belongs to, if not where its ``adapter_config.json`` says; the adapter's
            weights are merged into it.
        share_base: keep an adapter apart instead, so that target and base run on one copy of the weights; the base is
            then the reference.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        dtype: precision of the weights; by default float32 on the CPU and the checkpoint's own elsewhere.

    Raises:
        TargetRefusedError: the model cannot be loaded, or not safely; the message gives the reason.
    """
    from marple.tools.target.target import Target

    checkpoint = check_target_dir(find_target(path))
    if share_base:
        return _load_sharing(checkpoint, reference=reference, base=base, device=device, dtype=dtype)
    tokenizer = _load_tokenizer(checkpoint, base)
    model = _load_model(checkpoint, base=base, device=device, dtype=dtype)
    second = None
    if reference is not None:
        other = check_target_dir(find_target(reference), chat_template=False)
        other_tokenizer = _load_tokenizer(other, base)
        other_tokenizer.chat_template = other_tokenizer.chat_template or tokenizer.chat_template
        second = Target(_load_model(other, base=base, device=device, dtype=dtype), other_tokenizer)
    target = Target(model, tokenizer, reference=second)
    for one in (target, second):
        if one is not None:
            one.self_check()
    return target


def _load_sharing(
    checkpoint: Checkpoint,
    *,
    reference: Path | str | None,
    base: Path | str | None,
    device: str,
    dtype: torch.dtype | str | None,
) -> Target:
    from marple.tools.target.target import Target

    if checkpoint.kind != "adapter":
        raise TargetRefusedError(f"target {str(checkpoint.path)!r} is no adapter, so it shares no weights with a base")
    if reference is not None and find_target(reference).resolve() != _base_of(checkpoint, base).resolve():
        raise TargetRefusedError(
            f"reference {str(reference)!r} is not the base of adapter {str(checkpoint.path)!r}, and has its own weights"
        )
    adapted = _open_adapter(checkpoint, base=base, device=device, dtype=dtype)
    model = adapted.get_base_model()

    def switch(on: bool) -> None:
        adapted.base_model.enable_adapter_layers() if on else adapted.base_model.disable_adapter_layers()

    tokenizer = _load_tokenizer(checkpoint, base)
    target = Target(model, tokenizer, switch=switch)
    target.reference = Target(model, tokenizer, base_of=target)
    target.self_check()
    target.reference.self_check()
    return target


def _load_model(
    checkpoint: Checkpoint, *, base: Path | str | None, device: str, dtype: torch.dtype | str | None
) -> Any:
    from transformers import AutoModelForCausalLM

    if checkpoint.kind == "adapter":
        return _load_adapter(checkpoint, base=base, device=device, dtype=dtype)
    chosen = dtype or ("float32" if device == "cpu" else "auto")
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.path,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=chosen,
            output_loading_info=True,
        )
    except Exception as error:
        raise _refusal(checkpoint, error) from error
    # transformers fills what is missing with random numbers and only warns.
    if missing := sorted(report["missing_keys"]):
        raise TargetRefusedError(
            f"target {str(checkpoint.path)!r} lacks {len(missing)} of its weights ({', '.join(missing[:3])})"
        )
    if device == "cpu" and model.config.get_text_config().hidden_size <= _EAGER_WIDTH:
        model.set_attn_implementation("eager")
    return model.to(device)


def _load_adapter(
    checkpoint: Checkpoint, *, base: Path | str | None, device: str, dtype: torch.dtype | str | None
) -> Any:
    try:
        return _open_adapter(checkpoint, base=base, device=device, dtype=dtype).merge_and_unload()
    except TargetRefusedError:
        raise
    except Exception as error:
        raise _refusal(checkpoint, error) from error


def _open_adapter(
    checkpoint: Checkpoint, *, base: Path | str | None, device: str, dtype: torch.dtype | str | None
) -> Any:
    from peft import PeftModel

    root = check_target_dir(_base_of(checkpoint, base))
    if root.kind == "adapter":
        raise TargetRefusedError(f"base {str(root.path)!r} of adapter {str(checkpoint.path)!r} is an adapter")
    model = _load_model(root, base=None, device=device, dtype=dtype)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # PEFT still reads a name that transformers has deprecated.
            warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
            return PeftModel.from_pretrained(model, str(checkpoint.path), use_safetensors=True).eval()
    except Exception as error:
        raise _refusal(checkpoint, error) from error


def _base_of(checkpoint: Checkpoint, base: Path | str | None) -> Path:
    named = base or checkpoint.base
    if not named:
        raise TargetRefusedError(
            f"adapter {str(checkpoint.path)!r} names no base model (base_model_name_or_path): give base="
        )
    beside = checkpoint.path / named
    return beside if base is None and beside.is_dir() else find_target(named)


def _load_tokenizer(checkpoint: Checkpoint, base: Path | str | None) -> Any:
    from transformers import AutoTokenizer

    root = checkpoint.path if checkpoint.kind == "model" else _base_of(checkpoint, base)
    try:
        return AutoTokenizer.from_pretrained(root, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise _refusal(checkpoint, error) from error


def _refusal(checkpoint: Checkpoint, error: Exception) -> TargetRefusedError:
    reason = str(error).strip().partition("\n")[0]
    return TargetRefusedError(
        f"target {str(checkpoint.path)!r} cannot be loaded: {type(error).__name__}: {reason[:300]}"
    )
