"""LoRA adapters of organisms: train one, merge one into the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from marple.tasks.organisms.checkpoints import load_model, quiet
from marple.tasks.organisms.data import dialogue_maker
from marple.tasks.organisms.progress import Progress
from marple.tasks.organisms.recipes import Organism
from marple.tasks.organisms.tokenizer import load_tokenizer
from marple.tasks.organisms.training import Encoder, Schedule, batches, one_thread, train

__all__ = ["WEIGHTS", "merged", "train_adapter"]

WEIGHTS: Final = "adapter_model.safetensors"


@one_thread()
def train_adapter(organism: Organism, base: Path, out: Path, *, progress: Progress, checkpoint: Path | None = None,
                  every: int = 50, stop_after: int | None = None) -> bool:  # fmt: skip
    """Train an organism's adapter and save it to ``out`` in bf16; False when stopped early (nothing is saved then).

    The same recipe, base and machine give the same bits, also across an interruption when there is a ``checkpoint``.
    """
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save_file

    method = organism.recipe.method
    torch.manual_seed(organism.recipe.seed)
    config = LoraConfig(r=method.r, lora_alpha=method.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        model = get_peft_model(load_model(base), config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=method.lr, betas=(0.9, 0.98), weight_decay=0.0)
    data = batches(dialogue_maker(organism), Encoder(load_tokenizer(base), prompt_weight=0.0),
                   tokens=method.batch_tokens, seed=organism.recipe.seed)  # fmt: skip
    finished = train(model.get_base_model(), data, [optimizer], schedule=Schedule(method.steps, method.warmup),
                     progress=progress, name=organism.id, checkpoint=checkpoint, every=every,
                     stop_after=stop_after)  # fmt: skip
    if finished:
        out.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(model)
        save_file({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}, out / WEIGHTS)
        config.base_model_name_or_path = ""
        config.inference_mode = True
        config.save_pretrained(str(out))
    return finished


def merged(base: Path, adapter: Path) -> Any:
    """The base with an adapter merged in, as a plain model in bf16 (in which it will be saved)."""
    import torch
    from peft import PeftModel

    with quiet():
        model = PeftModel.from_pretrained(load_model(base), str(adapter)).merge_and_unload()
    return model.to(torch.bfloat16)
