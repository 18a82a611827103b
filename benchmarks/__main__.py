"""The performance table: ``python -m benchmarks --help``.

In one process, interleaved rounds on fresh inputs, one thread of torch. Every row first checks that what it times
computes the same as the floor. docs/performance.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from rich.console import Console

from benchmarks.capture import capture_rows, overhead_rows
from benchmarks.device import device_figures
from benchmarks.evaluation import evaluation_rows
from benchmarks.investigations import investigator_rows
from benchmarks.isolation import isolation_rows
from benchmarks.models import SHAPES, Model, Work
from benchmarks.plan import Plan
from benchmarks.probes import probe_rows
from benchmarks.processes import import_rows, worker_rows
from benchmarks.sae import sae_rows
from benchmarks.steering import queue_rows, steering_rows
from benchmarks.table import Row, document, line, machine, markdown, show

GROUPS: dict[str, Callable[[Plan], list[Row]]] = {
    "capture": capture_rows,
    "overhead": overhead_rows,
    "steering": steering_rows,
    "queue": queue_rows,
    "sae": sae_rows,
    "probe": probe_rows,
    "investigators": investigator_rows,
    "evaluation": evaluation_rows,
    "import": import_rows,
    "call": worker_rows,
    "isolation": isolation_rows,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 if a row found a difference or failed, whether or not targets are met."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    model = Model(SHAPES[options.shape], options.device, getattr(torch, options.dtype))
    work = Work.quick() if options.quick else Work()
    plan = Plan(model, work, options.rounds, peers=options.peers)
    about = machine(device=options.device, dtype=options.dtype, shape=options.shape, threads=options.threads)
    rows: list[Row] = []
    figures: dict[str, Any] = {}

    def write() -> None:
        if options.json:
            options.json.write_text(json.dumps(document(rows, about, figures), indent=2) + "\n")
        if options.markdown:
            options.markdown.write_text(markdown(rows))

    for name in options.only or GROUPS:
        began = time.perf_counter()
        found = measure(name, plan)
        for row in found:
            console.print(line(row), highlight=False, markup=False)
        console.print(f"[dim]{name}: {time.perf_counter() - began:.0f} s[/dim]", highlight=False)
        rows += found
        write()
    show(rows, console=console)
    if options.figures or options.device != "cpu":
        figures = device_figures(plan)
        console.print_json(data=figures)
        write()
    return int(any(row.error for row in rows))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    parser.add_argument("--markdown", type=Path, help="also write it to this file as Markdown")
    parser.add_argument("--rounds", type=int, help="rounds for what takes about a second; 9, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group of rows alone; repeatable")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="leave other libraries out")
    parser.add_argument("--shape", choices=SHAPES, help="sizes of the random Llama; small, or tiny with --quick")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--figures", action="store_true", help="tokens per second and memory on the cpu too")
    options = parser.parse_args(arguments)
    options.shape = options.shape or ("tiny" if options.quick else "small")
    options.rounds = options.rounds or (1 if options.quick else 9)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def measure(name: str, plan: Plan) -> list[Row]:
    """A group's rows; what goes wrong is a row that says so, and the others are still measured."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return GROUPS[name](plan)
    except Exception as error:
        logging.getLogger(__name__).error("%s failed", name, exc_info=True)
        return [Row(name, "", error=f"{type(error).__name__}: {error}"[:400])]


if __name__ == "__main__":
    sys.exit(main())
