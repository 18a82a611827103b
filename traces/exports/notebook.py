"""A run as a Jupyter notebook: each experiment a cell that makes it again on the target, with what it showed.

Written for notebook format 4.5 (https://nbformat.readthedocs.io).
"""

from __future__ import annotations

import base64
import json
import pprint
from collections.abc import Mapping, Sequence
from typing import Any

from marple.traces.exports.fences import fenced, inline
from marple.traces.exports.steps import Step, image_of, steps_of
from marple.traces.exports.verdict import claims_of, headline, verdict_lines
from marple.traces.review.shown import shown
from marple.traces.run_folder import RunFolder

__all__ = ["notebook"]


def notebook(run: RunFolder) -> str:
    """The notebook's JSON text.

    Raises:
        CorruptTraceError: the run cannot be read.
    """
    steps = steps_of(run)
    cells = [_markdown(_opening(run)), _code(_start(run.spec), [])]
    for step in steps:
        cells += _cells(run, step)
    cells += [_markdown(_closing(run)), _code("experiments.close()", [])]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {
        "cells": [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}, "marple": {"run_id": run.run_id}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _opening(run: RunFolder) -> str:
    return (
        f"# {inline(headline(run))}\n\n"
        f"Run {inline(run.run_id)}. Every experiment of the run is a cell below, with what it showed then as its "
        "output; running a cell makes the experiment again, with the same seed. Change an argument to ask something "
        "else. What the target says is data."
    )


def _start(spec: Mapping[str, Any]) -> str:
    """The cell that starts the worker on the same target."""
    given: dict[str, Any] = {}
    if spec.get("case_file"):
        given["case"] = spec["case_file"]
    elif spec.get("target"):
        given |= {"target": spec["target"], "reference": spec.get("reference")}
    else:
        given["case"] = spec.get("case")
    given |= {"saes": tuple(spec.get("saes") or ()), "corpus": spec.get("corpus")}
    named = ", ".join(f"{name}={value!r}" for name, value in given.items() if value)
    return (
        "from marple.agent.experimenting import open_experiments, show\n\n"
        f"experiments = open_experiments({named})\nprint(experiments.tools)"
    )


def _cells(run: RunFolder, step: Step) -> list[dict[str, Any]]:
    if step.kind == "turn" and (step.text or step.thinking):
        said = "\n\n".join(filter(None, (step.thinking, step.text)))
        return [_markdown(f"**{step.event.id}**\n\n{fenced(said)}")]
    if step.kind == "note":
        return [_markdown(f"*{step.event.id} {step.event.type}*\n\n{fenced(step.text)}")]
    if step.kind != "result":
        return []
    if not step.event.payload.get("on_target"):
        arguments = json.dumps(step.event.payload.get("arguments"), ensure_ascii=False)
        return [_markdown(f"*{step.event.id} {inline(step.tool)}*\n\n{fenced(arguments)}")]
    return [_code(_call(step), _outputs(run, step))]


def _call(step: Step) -> str:
    payload = step.event.payload
    arguments = pprint.pformat(payload.get("arguments") or {}, width=110, sort_dicts=False)
    seed = payload.get("seed", 0)
    return f"# {step.event.id}\nshow(experiments.call({step.tool!r}, {arguments}, seed={seed!r}))"


def _outputs(run: RunFolder, step: Step) -> list[dict[str, Any]]:
    lines = shown(step.text).splitlines(keepends=True)
    outputs: list[dict[str, Any]] = [{"output_type": "stream", "name": "stdout", "text": lines}]
    for image in step.images:
        data = image_of(run, image)
        if data is not None:
            encoded = base64.b64encode(data).decode()
            outputs.append({"output_type": "display_data", "data": {image.media_type: encoded}, "metadata": {}})
    return outputs


def _closing(run: RunFolder) -> str:
    result = run.result
    if result is None:
        return f"The run is {run.status}: it has no verdict yet."
    lines = [f"- {inline(line)}" for line in verdict_lines(result)]
    for claim, mark in claims_of(result):
        cited = ", ".join(map(str, claim.get("evidence", ())))
        lines.append(
            f"- claim {claim.get('credence')}: {inline(str(claim.get('statement')))} ({cited}) - {inline(mark)}"
        )
    return "## Verdict\n\n" + "\n".join(lines)


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str, outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": list(outputs),
        "source": text.splitlines(keepends=True),
    }
