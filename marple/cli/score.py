"""``marple score``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.cli.run import RUNS_OPTION

if TYPE_CHECKING:
    from marple.traces import RunFolder

__all__ = ["score"]


def score(
    run: Annotated[str, typer.Argument(help="Id of the run, the start of one, or its folder.")],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    judge: Annotated[str | None, typer.Option(help="A model that judges the report too, as provider/name.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of the judge's API.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is written.")] = False,
) -> None:
    """Score an old run again from its trace; nothing is run again, and result.json stays as it is."""
    from marple.agent.rescoring import rescore, write_rescored
    from marple.tools.visible import visible
    from marple.traces import find_run

    folder = find_run(runs, run)
    document = rescore(folder)
    if judge is not None:
        document["judge"] = asyncio.run(_judged(folder, judge, base_url))
    path = write_rescored(folder, document)
    if as_json:
        print(json.dumps(document, sort_keys=True))
        return
    scores = document["scores"]
    then, now = dict(_flat(scores["then"])), dict(_flat(scores["now"]))
    print(visible(f"{document['case']} · {document['investigator']} · {document['status']}"))
    print(f"  {'':28}{'then':>22}{'now':>22}")
    for name in dict.fromkeys([*then, *now]):
        values = (_shown(then.get(name, "-")), _shown(now.get(name, "-")))
        print(visible(f"  {name:28}{values[0]:>22}{values[1]:>22}{'' if values[0] == values[1] else '  changed'}"))
    if "judge" in document:
        said = document["judge"]
        verdict = said["verdict"] or said["failure"]
        print(
            visible(f"  judge {said['model']}: {verdict}, {said['agreement']:.2f} of {said['repeats']} askings agree")
        )
    print(visible(f"  written to {path}"))


async def _judged(folder: RunFolder, judge: str, base_url: str | None) -> dict[str, Any]:
    from marple.agent.judging import judge_run
    from marple.agent.models import open_model
    from marple.agent.rescoring import session_again

    session, materials = session_again(folder)
    model = open_model(judge, base_url=base_url)
    try:
        return await judge_run(model, session, materials.truth)
    finally:
        await model.close()


def _flat(scores: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, mark and truth value by a dotted name."""
    for name, value in scores.items():
        if before == "gap." and name != "overall":
            continue  # read in the file; a line for each slot and tool would hide the rest
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif name == "claims":
            yield from ((f"claims.{number}", one["mark"]) for number, one in enumerate(value, start=1))
        elif not isinstance(value, list):
            yield f"{before}{name}", value


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.3f}" if isinstance(value, float) else str(value)
