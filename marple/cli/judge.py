"""``marple judge``."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The language model that judges free text: how far it can be trusted.")


@app.callback()
def judge() -> None:
    """Keep `validate` a command of its own."""


@app.command("validate")
def validate(
    model: Annotated[str, typer.Option(help="The judge, as provider/name.")],
    base_url: Annotated[str | None, typer.Option(help="Address of the model's API.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often each report is judged.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> None:
    """Let a model judge reports that people have labelled, and print how far it agrees with them."""
    from marple.tools.visible import visible

    found = asyncio.run(_validated(model, base_url, repeats))
    if as_json:
        print(json.dumps(found))
        return
    for row in found["reports"]:
        said = row["verdict"] or row["failure"]
        mark = "" if said == row["label"] else "  differs"
        print(visible(f"  {row['id']:30} label {row['label']:8} judge {said:14} {row['agreement']:.2f} agree{mark}"))
    print(
        f"{found['n']} of {found['n_total']} judged; agreement {_share(found['agreement'])}, "
        f"{_share(found['agreement_of_all'])} of all; kappa {_share(found['kappa'])}; "
        f"repeats agree {_share(found['repeats_agree'])}"
    )


async def _validated(model: str, base_url: str | None, repeats: int) -> dict[str, Any]:
    from marple.agent.judging import validate as validate_judge
    from marple.agent.models import open_model
    from marple.tasks.judge import labelled_reports

    opened = open_model(model, base_url=base_url)
    try:
        return await validate_judge(opened, labelled_reports(), repeats=repeats)
    finally:
        await opened.close()


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
