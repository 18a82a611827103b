"""What the investigators without a language model score on a suite: the numbers in the README.

Run ``python benchmarks/investigators.py [--suite nano] [--seeds 3] [--json FILE]``: one row a run, then the totals.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marple.agent.configuration import RunConfig
from marple.agent.run import launch, open_bench
from marple.tasks.aggregate import aggregate
from marple.tasks.case import Case, list_cases
from marple.tasks.materials import prepare

INVESTIGATORS = ("prior", "scripted-blackbox", "scripted-whitebox")


async def play_case(case: Case, names: Sequence[str], seeds: Sequence[int], runs: Path) -> list[dict[str, Any]]:
    """Every investigator and seed on one case, on one worker."""
    bench = await open_bench(prepare(case), backend="auto")
    results = []
    try:
        for name in names:
            for seed in seeds:
                config = RunConfig.of(case=case.id, investigator=name, seed=seed, runs=runs)
                outcome = await launch(config, bench=None if name == "prior" else bench)
                assert outcome.result is not None
                results.append(outcome.result)
    finally:
        await bench.close()
    return results


def row(result: dict[str, Any]) -> str:
    scores, answer = result["scores"], result["answer"] or {}
    best: dict[str, Any] = max(answer.get("candidates") or [{}], key=lambda c: c.get("probability", 0.0))
    said = " ".join(str(value) for name, value in best.items() if name != "probability") or "nothing"
    verdict = scores.get("solved") if scores.get("solved") is not None else scores.get("cleared")
    mark = "-" if verdict is None else "yes" if verdict else "NO"
    return (
        f"{result['case']:22} {result['investigator']:18} seed {result['seed']}  {mark:3} "
        f"p(nothing) {answer.get('nothing_hidden', 0.0):.2f}  {said:40} {result['usage']['seconds']:5.1f} s"
    )


def totals(results: list[dict[str, Any]]) -> dict[str, str]:
    """One investigator's row: means over the scored runs, with bounds where some were not."""
    means = aggregate(results)
    counts = {name: means.pop(name) for name in ("scored", "solved", "cleared")}
    return {
        **{name: f"{round((one.value or 0) * one.n)}/{one.n_total}" for name, one in counts.items()},
        **{name: str(one) for name, one in means.items()},
        "experiments": f"{statistics.fmean(r['usage']['calls'] for r in results):.1f}",
        "target_tokens": f"{statistics.fmean(r['usage']['target_tokens'] for r in results):.0f}",
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="nano")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--investigators", nargs="+", default=INVESTIGATORS, help="which of them; all by default")
    parser.add_argument("--case", action="append", help="only this case; repeatable")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in list_cases(arguments.suite):
            if arguments.case and case.id not in arguments.case:
                continue
            for result in await play_case(case, arguments.investigators, range(1, arguments.seeds + 1), Path(folder)):
                results.append(result)
                print(row(result), flush=True)
    table = {name: totals([r for r in results if r["investigator"] == name]) for name in arguments.investigators}
    print(f"\n{'investigator':18}" + "".join(f"{key:>20}" for key in next(iter(table.values()))))
    for name, values in table.items():
        print(f"{name:18}" + "".join(f"{value:>20}" for value in values.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps({"totals": table, "results": results}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
