"""A log that Inspect writes itself with its mock model: ``python inspect_task.py FOLDER``.

The tokens are given, for to count them it would download a tokenizer.
"""

from __future__ import annotations

import sys

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

said = ModelOutput.from_content("mockllm/model", "so I say it")
said.usage = ModelUsage(input_tokens=7, output_tokens=4, total_tokens=11)
task = Task(dataset=[Sample("say it", target="say it")], solver=generate(), scorer=includes(), name="mock")
eval(task, model=get_model("mockllm/model", custom_outputs=[said]), log_dir=sys.argv[1], display="none")
