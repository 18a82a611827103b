"""``marple tool``: one tool on one target, for people and for scripts."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.cli.run import CORPUS_OPTION, PLUGIN_OPTION, SAE_OPTION
from marple.cli.tools_shown import find_tool, list_tools, shell_word, show_tool
from marple.cli.typed_json import read_json
from marple.errors import StorageError, ToolError, UsageError

if TYPE_CHECKING:
    from marple.agent.workbench import Workbench
    from marple.sandboxes.plugins import PluginTool
    from marple.tasks.materials import Materials
    from marple.tools.contract import ToolResult, ToolSpec

__all__ = ["tool"]

DEFAULT_RESULTS = Path("tool-results")
"""Where results go unless told otherwise, each in a folder of its own."""


def tool(
    name: Annotated[str | None, typer.Argument(help="Name of a tool; without one, all are listed.")] = None,
    target: Annotated[
        str | None, typer.Option(help="A model's directory or hub id, a PEFT adapter, or the id of an organism.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="What it is compared with; of an organism or an adapter its base by default.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="A PEFT adapter of the target; the reference is the base.")
    ] = None,
    sae: Annotated[list[Path] | None, SAE_OPTION] = None,
    corpus: Annotated[Path | None, CORPUS_OPTION] = None,
    plugin: Annotated[list[Path] | None, PLUGIN_OPTION] = None,
    args: Annotated[str | None, typer.Option(help="The tool's arguments as a JSON object, or @FILE with one.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every sample and draw.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for result.json and the plots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is in result.json, and nothing else.")] = False,
) -> None:
    """Run one tool on one target in a worker; without a target, show what the tool does and takes."""
    from marple.agent.plugins import named_plugins, tools_of

    plugins = named_plugins(plugin or [])
    own = tools_of(plugins)
    if name is None:
        list_tools(own, as_json=as_json)
        return
    if target is None:
        if args is not None:
            raise UsageError("say on which target: --target with a model's directory, a hub id or an organism's id")
        show_tool(find_tool(name, own), as_json=as_json)
        return
    from marple.agent.configuration import check_beside

    check_beside(sae or [], corpus)
    spec = find_tool(name, own)
    arguments = _default_arguments(spec) if args is None else read_json(args, f"marple tool {name}")
    folder = _folder(out, name)
    request = {"tool": name, "target": target, "arguments": arguments, "seed": seed}
    beside = {"saes": tuple(sae or ()), "corpus": corpus, "plugins": plugins}
    try:
        record, result = asyncio.run(_call(request, spec, reference=reference, adapter=adapter, beside=beside))
    except ToolError as error:
        raise UsageError(str(error)) from error
    record = {**record, **_write(folder, record, result)}
    print(json.dumps(record) if as_json else _report(record))


# ---------------------------------------------------------------------------------------------- arguments


def _default_arguments(spec: ToolSpec | PluginTool) -> dict[str, Any]:
    from marple.sandboxes.plugins import PluginTool

    if isinstance(spec, PluginTool):
        # What it takes is known to the worker alone, which says what is missing.
        return {}
    if required := spec.parameters.get("required", []):
        raise UsageError(
            f"{spec.name} needs --args with {', '.join(required)}, for example --args '{shell_word(spec.example)}'; "
            f"marple tool {spec.name} says what they mean"
        )
    return {}


# ---------------------------------------------------------------------------------------------- running


async def _call(
    request: Mapping[str, Any],
    spec: ToolSpec | PluginTool,
    *,
    reference: str | None,
    adapter: str | None,
    beside: Mapping[str, Any],
) -> tuple[dict[str, Any], ToolResult]:
    """What is recorded of the call, and its result."""
    from marple.agent.run import open_bench
    from marple.tasks.materials import materials_of

    with _Bars() as bars:
        found: Materials = await asyncio.to_thread(
            materials_of, request["target"], reference=reference, adapter=adapter, progress=bars.building()
        )
        bench = await open_bench(found.beside(**beside))
        try:
            _check_offered(bench, spec)
            start = time.monotonic()
            result = await bench.call(
                request["tool"], request["arguments"], seed=request["seed"], on_progress=bars.calling
            )
            seconds = time.monotonic() - start
        finally:
            await bench.close()
    return {**request, "seconds": seconds, "facts": bench.facts, "stamp": bench.stamp}, result


def _check_offered(bench: Workbench, spec: ToolSpec | PluginTool) -> None:
    if spec.name in bench.tools:
        return
    options = {"reference": "--reference", "sae": "--sae", "corpus": "--corpus"}
    needs = [f"a {need} ({options[need]})" for need in spec.needs]
    raise UsageError(f"{spec.name} needs {' and '.join(needs)}, which this target has not")


class _Bars:
    """Bars on standard error for what takes long, where it is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._call = self._bars.add_task("starting a worker", total=None)

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def building(self) -> Any:
        """A bar for what is built."""
        from marple.cli.organisms import RichProgress

        return RichProgress(self._bars)

    def calling(self, done: int, total: int, what: str) -> None:
        """Move the call's bar."""
        from rich.markup import escape

        from marple.tools.visible import visible

        self._bars.update(self._call, description=escape(visible(what)), completed=done, total=total)


# ---------------------------------------------------------------------------------------------- results


def _folder(out: Path | None, name: str) -> Path:
    """The folder to write to; a given one is made now, so that nothing is computed in vain."""
    if out is None:
        moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        return DEFAULT_RESULTS / f"{moment}-{name}-{secrets.token_hex(2)}"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {str(out)!r} cannot be a folder: {error.strerror}") from error
    return out


def _write(folder: Path, record: Mapping[str, Any], result: ToolResult) -> dict[str, Any]:
    """Write ``result.json`` and the artifacts; returns what the file holds beside the record."""
    names = _file_names([artifact.name for artifact in result.artifacts])
    content = {
        "text": result.text,
        "data": dict(result.data),
        "controls": dict(result.controls),
        "cost": vars(result.cost),
        "handles": list(result.handles),
        "artifacts": [
            {"file": name, "media_type": artifact.media_type}
            for name, artifact in zip(names, result.artifacts, strict=True)
        ],
        "out": str(folder),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, artifact in zip(names, result.artifacts, strict=True):
            (folder / name).write_bytes(artifact.data)
        text = json.dumps({**record, **content}, ensure_ascii=False, indent=1)
        (folder / "result.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the result cannot be written to {str(folder)!r}: {error.strerror}") from error
    return content


def _file_names(names: list[str]) -> list[str]:
    """Artifacts' names, each once, and none of them ``result.json``; the wire allows no path in them."""
    taken, given = {"result.json"}, []
    for name in names:
        file, number = name, 2
        while file in taken:
            file, number = f"{Path(name).stem}-{number}{Path(name).suffix}", number + 1
        taken.add(file)
        given.append(file)
    return given


def _report(record: Mapping[str, Any]) -> str:
    from marple.tools.visible import visible

    cost = record["cost"]
    files = ", ".join(["result.json", *(artifact["file"] for artifact in record["artifacts"])])
    tokens = cost["prompt_tokens"] + cost["generated_tokens"]
    text = visible(record["text"], lines=True)
    return f"{text}\n\n({tokens:,} target tokens, {cost['seconds']:.1f} s; in {record['out']}: {files})"
