"""Rows 9 and 10: what importing costs, and what a call to the worker costs beyond its work."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import startup, worker
from benchmarks.peers import module
from benchmarks.plan import Plan
from benchmarks.rounds import estimate
from benchmarks.table import Row, Target

__all__ = ["import_rows", "worker_rows"]

# What any program around a Hugging Face model loads.
FLOOR = (
    "import torch, numpy, safetensors.torch, tokenizers\n"
    "from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast"
)
# Target, engine, autoencoders and probes.
CORE = (
    "import marple.tools.target.loading, marple.tools.engine.engine, marple.tools.engine.interventions\n"
    "import marple.tools.saes.sae, marple.tools.probes.linear"
)
PEERS = {
    "SAELens": ("sae_lens", "import sae_lens"),
    "TransformerLens": ("transformer_lens", "import transformer_lens"),
    "nnsight": ("nnsight", "import nnsight"),
}


def import_rows(plan: Plan) -> list[Row]:
    """Processor seconds of the imports alone, in fresh processes that have loaded torch and transformers."""
    rounds = plan.rounds_of(0.5)
    codes = {"ours": CORE}
    if plan.peers:
        codes |= {name: code for name, (library, code) in PEERS.items() if module(library) is not None}
    spent: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            spent[name].append(_import_seconds(code))
    core = Row(
        "core import beyond torch and transformers",
        "s",
        floor=0.0,
        floor_is="0",
        peers={name: statistics.median(values) for name, values in spent.items() if name != "ours"},
        rounds=rounds,
        seconds={name: statistics.median(values) for name, values in spent.items()},
    )
    starting = {
        name: [_process_seconds(startup.COMMANDS[name]) for _ in range(rounds)]
        for name in ("python -c pass", "marple --help")
    }
    help_ = Row(
        "marple --help, from nothing to done",
        "s",
        floor=statistics.median(starting["python -c pass"]),
        floor_is="python -c pass",
        rounds=rounds,
        seconds={name: statistics.median(values) for name, values in starting.items()},
    )
    return [core.set(estimate(spent["ours"]), Target(0.1)), help_.set(estimate(starting["marple --help"]), Target(0.5))]


def _process_seconds(command: list[str]) -> float:
    """Processor time of a process from its start to its end."""
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _import_seconds(code: str) -> float:
    script = f"{FLOOR}\nimport time\nbegan = time.process_time()\n{code}\nprint(time.process_time() - began)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def worker_rows(plan: Plan) -> list[Row]:
    """One call of a tool that does nothing, there and back."""
    calls = 20 if plan.rounds < 3 else 300
    with tempfile.TemporaryDirectory() as folder:
        options = argparse.Namespace(model=None, starts=1, calls=calls, backend="auto")
        samples = asyncio.run(worker.sample(options, Path(folder)))
    ours = estimate(samples.one)
    row = Row(
        "one tool call, host to worker and back, beyond the work",
        "ms",
        floor=statistics.median(samples.floor) * 1e3,
        floor_is="bytes echoed over the same pipes",
        rounds=calls,
        seconds={"ours": ours.median, "floor": statistics.median(samples.floor), "many at once": samples.together},
        note="by the wall clock",
    )
    return [row.set(ours, Target(1.0), scale=1e3)]
