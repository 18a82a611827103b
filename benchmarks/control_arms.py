"""What each control arm scores on each case of a suite, and the table of it in docs/tasks.md.

``python -m benchmarks.control_arms --json FILE [--suite nano] [--seed 1] [--case ID ...]`` plays, case by case, what
FILE does not hold; ``--write`` then puts the table between the marks in docs/tasks.md. Nothing in the table is typed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.investigators import INVESTIGATORS, play_case
from marple.tasks.case import list_cases

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"
BEGIN, END = "<!-- control arms -->", "<!-- /control arms -->"


def cell(result: Mapping[str, Any] | None) -> str:
    """One arm's result on one case: found, cleared or neither, and what its score says."""
    if result is None:
        return "-"
    scores = result["scores"]
    if not scores.get("scored"):
        return str(result["status"])
    verdict = scores["solved"] if scores["solved"] is not None else scores["cleared"]
    figures = []
    areas = scores.get("auroc")
    known = {**scores, "auroc": areas.get("out_of_distribution") if isinstance(areas, dict) else None}
    for name, label in (("brier", "Brier"), ("average_precision", "AP"), ("auroc", "AUROC"), ("score", "score")):
        if isinstance(known.get(name), (int, float)):
            figures.append(f"{label} {known[name]:.2f}")
    for name in ("forecast", "fires"):
        skill = (scores.get(name) or {}).get("skill")
        if skill is not None:
            shown = f"{skill:+.2f}" if skill > -1 else "below -1"
            figures.append(f"{'replies' if name == 'forecast' else 'fires'} {shown}")
    mark = {True: "**yes**", False: "no", None: "-"}[verdict]
    return f"{mark} ({', '.join(figures)})" if figures else mark


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of the table: one row a case, in the order of the suite, one column an arm."""
    by = {(r["case"], r["investigator"]): r for r in results}
    lines = ["| case | " + " | ".join(f"`{name}`" for name in INVESTIGATORS) + " |"]
    lines.append("|---" * (len(INVESTIGATORS) + 1) + "|")
    for case in dict.fromkeys(r["case"] for r in results):
        lines.append(f"| {case} | " + " | ".join(cell(by.get((case, name))) for name in INVESTIGATORS) + " |")
    return lines


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """How many organisms an arm leaves unsolved, and which cases only white-box tools solve."""
    solved = {(r["case"], r["investigator"]): r["scores"].get("solved") for r in results}
    cases = [case for case, name in solved if name == "prior" and solved[case, name] is not None]
    missed = [case for case in cases if solved.get((case, "scripted-blackbox")) is False]
    only = [case for case in missed if solved.get((case, "scripted-whitebox"))]
    organisms, hard = ({case.split("/")[1] for case in some} for some in (cases, missed))
    return (
        f"`scripted-blackbox` leaves {len(missed)} of {len(cases)} cases with something to find unsolved,\n"
        f"on {len(hard)} of {len(organisms)} organisms; {len(only)} of these cases are solved with white-box tools:\n"
        + ", ".join(only)
        + "."
    )


def write(results: Sequence[Mapping[str, Any]], page: Path = PAGE) -> None:
    """Put the table between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text("\n".join([before + BEGIN, summary(results), "", *table(results), END + after]), encoding="utf-8")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where results are kept; what is there is not played")
    parser.add_argument("--suite", default="nano")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", action="append", help="only this case; repeatable")
    parser.add_argument("--write", action="store_true", help="put the table into docs/tasks.md")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    known = {(r["case"], r["investigator"]) for r in results}
    for case in list_cases(arguments.suite):
        waiting = [name for name in INVESTIGATORS if (case.id, name) not in known]
        if not waiting or (arguments.case and case.id not in arguments.case):
            continue
        with tempfile.TemporaryDirectory() as folder:
            played = await play_case(case, waiting, [arguments.seed], Path(folder))
        keys = ("case", "kind", "investigator", "seed", "status", "scores", "usage")
        results += [{key: result[key] for key in keys} for result in played]
        arguments.json.write_text(json.dumps(results, indent=1))
        for result in played:
            print(f"{case.id:32} {result['investigator']:18} {cell(result)}", flush=True)
    order = {case.id: number for number, case in enumerate(list_cases(arguments.suite))}
    results.sort(key=lambda r: (order.get(r["case"], len(order)), INVESTIGATORS.index(r["investigator"])))
    if arguments.write:
        write(results)


if __name__ == "__main__":
    asyncio.run(main())
