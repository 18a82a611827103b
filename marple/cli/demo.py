"""``marple demo``: one organism and its clean twin, examined without a language model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from marple.cli.run import RUNS_OPTION, play

__all__ = ["demo"]

CASES = ("hidden-goal/nano-09", "hidden-goal/nano-03")
"""One target with a hidden goal and one without; which is which is for the investigator to find out."""


def demo(
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of the investigations.")] = 1,
) -> None:
    """Watch two investigations unfold, offline: one model hides something, the other does not."""
    codes = [_investigate(case, runs, seed=seed) for case in CASES]
    print(f"\nRead a run again with: marple show RUN --runs {runs}")
    sys.exit(max(codes))


def _investigate(case: str, runs: Path, *, seed: int) -> int:
    from marple.agent.configuration import RunConfig
    from marple.agent.run import launch

    config = RunConfig.of(case=case, investigator="scripted-blackbox", seed=seed, runs=runs)
    return play(lambda watcher: launch(config, watcher=watcher), as_json=False)
