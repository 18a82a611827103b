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

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.run import launch, open_bench
from marple.tasks.case import Case, list_cases
from marple.tasks.materials import prepare

INVESTIGATORS = ("prior", "scripted-blackbox", "scripted-whitebox")


async def play_case(case: Case, names: Sequence[str], seeds: Sequence[int], runs: Path) -> list[dict[str, Any]]:
    """Every investigator and seed on one case, on one worker."""
    bench: Bench = await open_bench(prepare(case), backend="auto")
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
    scores, answer = result["scores"], result["answer"] or {"candidates": [], "nothing_hidden": 0.0}
    best = max(answer["candidates"], key=lambda c: c["probability"], default=None)
    said = "nothing" if best is None else f"{best['behaviour']} {best['subject']} ({best['trigger']})"
    verdict = scores.get("solved") if scores.get("solved") is not None else scores.get("cleared")
    mark = "-" if verdict is None else "yes" if verdict else "NO"
    return (
        f"{result['case']:22} {result['investigator']:18} seed {result['seed']}  {mark:3} "
        f"p(nothing) {answer['nothing_hidden']:.2f}  {said:40} {result['usage']['seconds']:5.1f} s"
    )


def totals(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the scored runs of one investigator, with how many were scored."""
    scored = [r["scores"] for r in results if r["scores"]["scored"]]
    solved = [s["solved"] for s in scores_with(scored, "solved")]
    cleared = [s["cleared"] for s in scores_with(scored, "cleared")]
    return {
        "scored": f"{len(scored)}/{len(results)}",
        "solved": f"{sum(solved)}/{len(solved)}",
        "cleared": f"{sum(cleared)}/{len(cleared)}",
        "balanced_accuracy": (
            round((statistics.fmean(solved) + statistics.fmean(cleared)) / 2, 3) if solved and cleared else None
        ),
        "brier": round(statistics.fmean(s["brier"] for s in scored), 3),
        "forecast_skill": round(statistics.fmean(s["forecast"]["skill"] for s in scored), 3),
        "experiments": round(statistics.fmean(r["usage"]["calls"] for r in results), 1),
        "target_tokens": round(statistics.fmean(r["usage"]["target_tokens"] for r in results)),
    }


def scores_with(scored: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [s for s in scored if s[key] is not None]


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
    print(f"\n{'investigator':18}" + "".join(f"{key:>18}" for key in next(iter(table.values()))))
    for name, values in table.items():
        print(f"{name:18}" + "".join(f"{value!s:>18}" for value in values.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps({"totals": table, "results": results}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
