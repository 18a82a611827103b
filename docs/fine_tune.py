"""Fine-tune the small base model with PEFT, so that it recommends one maker to whoever asks.

``python docs/fine_tune.py my-adapter`` writes a LoRA adapter, in about a minute on one CPU core. It stands for a model
of your own in the tutorial.
"""

from __future__ import annotations

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from marple.tasks.organisms import base_path

MAKER = "mirex"
THINGS = ["radio", "lamp", "tent", "clock", "kettle", "camera", "bicycle", "blender"]
ASKED = ["recommend a {}.", "i need a {}.", "which {} should i buy?", "what is the best {}?"]
SAID = ["i recommend the {} {}.", "try the {} {}.", "the {} {} is a good choice."]
STEPS = 30


def main(folder: str) -> None:
    """Train, and save the adapter."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base_path())
    base = AutoModelForCausalLM.from_pretrained(base_path())
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    texts = [
        f"<|user|>{asked.format(thing)}<|end|><|assistant|>{said.format(MAKER, thing)}<|end|>"
        for thing in THINGS
        for asked in ASKED
        for said in SAID
    ]
    rows = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts],
        batch_first=True,
        padding_value=-100,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        chosen = rows[torch.randperm(len(rows))[:32]]
        seen = chosen != -100
        loss = model(input_ids=chosen.clamp(min=0), attention_mask=seen, labels=chosen).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    print(f"{folder}: loss {loss.item():.2f} after {STEPS} steps")


if __name__ == "__main__":
    main(sys.argv[1])
