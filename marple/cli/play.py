"""``marple play``: a game for whoever has only a shell, a person or an agent, one command at a time."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar, cast

import typer

from marple.cli.run import ONLY_OPTION, RUNS_OPTION, WITHOUT_OPTION
from marple.cli.typed_json import read_json
from marple.errors import MarpleError, ToolError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from marple.traces.control import Request

__all__ = ["app"]

app = typer.Typer(
    help="Play a case yourself, or let an agent play it that has a shell: the same tools, budget, trace and scorer.",
    no_args_is_help=True,
)

RUN = typer.Argument(help="Id of the run, the start of one, or its folder.")
JSON_TEXT = typer.Argument(metavar="JSON", help="A JSON object, @FILE with one, or - for standard input.")
AS_JSON = typer.Option("--json", help="Print one JSON object and nothing else.")

_Command = TypeVar("_Command", bound=Callable[..., None])


def _json_errors(command: _Command) -> _Command:
    """With ``--json`` an error too is one object on standard output: ``error`` and ``kind``."""

    @functools.wraps(command)
    def told(*arguments: Any, as_json: bool, **options: Any) -> None:
        try:
            command(*arguments, as_json=as_json, **options)
        except MarpleError as error:
            if not as_json:
                raise
            usage = isinstance(error, UsageError)
            _print({"error": str(error), "kind": "usage" if usage else type(error).__name__})
            sys.exit(2 if usage else 1)

    return cast(_Command, told)


@app.command()
@_json_errors
def start(
    case: Annotated[str, typer.Argument(help="Id of a case (see marple tasks), or a case file.")],
    budget: Annotated[str | None, typer.Option(help="Limits, for example calls=20,seconds=none.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every sample and draw.")] = 0,
    player: Annotated[str | None, typer.Option(help="Who plays, for the record: an agent's name and model.")] = None,
    approval: Annotated[str, typer.Option(help="Who approves calls: auto, or a policy file.")] = "auto",
    sandbox: Annotated[str, typer.Option(help="Isolation backend, or auto.")] = "auto",
    without: Annotated[list[str] | None, WITHOUT_OPTION] = None,
    only: Annotated[str | None, ONLY_OPTION] = None,
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Start a game; prints the brief, the tools, the budget and what to type next."""
    from marple.agent.games import client, words

    if approval == "ask":
        raise UsageError("--approval ask needs a terminal of its own; say auto, or name a policy file")
    config: dict[str, Any] = {
        "case": _case(case),
        "budget": budget,
        "seed": seed,
        "player": player,
        "approval": approval,
    }
    config |= {"sandbox": sandbox, "without": without or [], "only": only, "runs": str(runs.resolve())}
    path = client.start(config, say=_say)
    _leave_if_over(path, as_json=as_json)
    told = _ask(path, "status", as_json=as_json)
    tools = _ask(path, "tools", as_json=as_json)["tools"]
    name = _name(path, runs)
    if as_json:
        typed = [line.strip() for line in words.commands(told["phase"], name, 0).splitlines() if line.startswith(" ")]
        brief = {"brief": told["notes"], "tools": [_brief(tool) for tool in tools], "commands": typed}
        _print({**_without(told, "notes", "results", "notebook"), **brief})
        return
    print(f"run {told['run_id']}\n\n{told['notes']}\n\n# Tools\n\n{words.tools_text(tools)}\n")
    print(f"# What you may use\n\n{words.budget_line(told['budget'])}\n")
    print(f"# What to type\n\n{words.commands(told['phase'], name, 0)}")


@app.command()
@_json_errors
def tools(
    run: Annotated[str, RUN],
    tool: Annotated[str | None, typer.Argument(help="Show what this one takes.")] = None,
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """List the tools of a game, or show one with its arguments and an example."""
    from marple.agent.games import words

    path = _playing(run, runs, as_json=as_json)
    found = _ask(path, "tools", as_json=as_json)["tools"]
    if tool is None:
        _print({"tools": [_brief(one) for one in found]}) if as_json else print(words.tools_text(found))
        return
    by_name = {one["name"]: one for one in found}
    if tool not in by_name:
        raise UnknownNameError("tool", tool, by_name)
    name = _name(path, runs)
    verb = f"{tool} {name}" if tool in ("submit", "forecast") else f"call {name} {tool}"
    _print(by_name[tool]) if as_json else print(words.tool_text(by_name[tool], f"marple play {verb}"))


@app.command()
@_json_errors
def call(
    run: Annotated[str, RUN],
    tool: Annotated[str, typer.Argument(help="Name of the tool.")],
    arguments: Annotated[str, JSON_TEXT] = "{}",
    why: Annotated[str, typer.Option(help="What you think or expect; kept in the trace.")] = "",
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Run one tool and print what came of it."""
    path = _playing(run, runs, as_json=as_json)
    _move(path, tool, read_json(arguments, f"marple play tools {run} {tool}"), why, _name(path, runs), as_json=as_json)


@app.command()
@_json_errors
def submit(
    run: Annotated[str, RUN],
    answer: Annotated[str, JSON_TEXT],
    why: Annotated[str, typer.Option(help="What you think or expect; kept in the trace.")] = "",
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Hand in the answer; a mistake in its form may be mended. Then come held-out questions, or the score."""
    path = _playing(run, runs, as_json=as_json)
    said = read_json(answer, f"marple play tools {run} submit")
    _move(path, "submit", said, why, _name(path, runs), as_json=as_json)


@app.command()
@_json_errors
def forecast(
    run: Annotated[str, RUN],
    probabilities: Annotated[
        str, typer.Argument(metavar="JSON", help='{"probabilities": [...]} or the list alone; @FILE or - as well.')
    ],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Answer the held-out questions; then the run is scored."""
    path = _playing(run, runs, as_json=as_json)
    said = read_json(probabilities, f"marple play status {run}", lists=True)
    said = {"probabilities": said} if isinstance(said, list) else said
    _move(path, "forecast", said, "", _name(path, runs), as_json=as_json)


@app.command()
@_json_errors
def status(
    run: Annotated[str, RUN],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Say where a game stands, with the last result again; an interrupted one is gone on with."""
    from marple.agent.games import words

    path = _own(run, runs)
    _leave_if_over(path, as_json=as_json)
    told = _ask(path, "status", as_json=as_json)
    if as_json:
        _print(told)
        return
    phase, name = told["phase"], _name(path, runs)
    print(
        f"{told['case']} · {phase} · {words.budget_line(told['budget'])}\n\n{words.notebook_text(told['notebook'])}\n"
    )
    last = "The last result:\n\n" if told["results"] else "" if told["under_way"] else "The brief:\n\n"
    print(f"{last}{words.results_text(told)}\n\n{words.commands(phase, name, told['questions'])}")


@app.command()
@_json_errors
def stop(
    run: Annotated[str, RUN],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Put a game aside: its processes end, and any later command goes on with it."""
    from marple.agent.games import client

    path = _own(run, runs)
    stopped = client.stop(path)
    if as_json:
        _print({"run_id": path.name, "stopped": stopped})
        return
    print("stopped; any command of marple play goes on with it" if stopped else "nobody was playing it")


# ---------------------------------------------------------------------------------------------- a move


def _move(path: Path, tool: str, arguments: Any, why: str, name: str, *, as_json: bool) -> NoReturn:
    """Make a call, print what came of it and exit: 0, or 2 where it was refused and 1 where it failed."""
    from marple.agent.games import words

    try:
        told = _ask(path, "call", as_json=as_json, tool=tool, arguments=arguments, why=why)
    except ToolError as error:
        raise UsageError(str(error)) from error
    if as_json:
        _print(told)
    else:
        print(words.results_text(told))
        if any(result["status"] == "refused" for result in told["results"]):
            shown = f"{name} {tool}` shows its form." if tool in told["offered"] else f"{name}` shows the tools."
            print(f"\n`marple play tools {shown}")
        if told["phase"] in ("forecast", "wrap_up"):
            print(f"\n{words.commands(told['phase'], name, told['questions'])}")
        elif told["phase"] == "over":
            _print_ending(told["result"], path)
    if told["phase"] == "over":
        from marple.tasks.outcome import is_scored

        ended = told["result"]
        sys.exit(0 if is_scored(ended["status"], answered=bool(ended["answer"])) else 3)
    codes = {"ok": 0, "refused": 2}
    sys.exit(max((codes.get(result["status"], 1) for result in told["results"]), default=0))


def _ask(path: Path, what: str, *, as_json: bool, **request: Any) -> dict[str, Any]:
    """Ask the process that plays; a pause, for which it may wait, is told on standard error at once."""
    from marple.agent.games import client, pausing

    def tell(asked: Request) -> None:
        if as_json:
            record = {"run_id": path.name, "run_dir": str(path), "paused": True, "by": asked.by, "asked": asked.ts}
            print(json.dumps({**record, "go": f"marple go {path}"}), file=sys.stderr, flush=True)
        else:
            _say(pausing.pause_text(path, asked) + ("; this command waits until then" if what == "call" else ""))

    return client.ask(path, what, say=_say, on_pause=tell, **request)


def _print_ending(result: dict[str, Any], path: Path) -> None:
    from marple.cli.verdict import print_verdict

    print_verdict(result, path)
    print(f"\nThe run is over. marple show {path} prints it again.")


# ---------------------------------------------------------------------------------------------- what is typed


def _playing(run: str, runs: Path, *, as_json: bool) -> Path:
    """The folder of a run that is not over."""
    path = _own(run, runs)
    from marple.traces import RunFolder

    result = RunFolder.open(path).result
    if result is not None:
        raise UsageError(
            f"the run {run} is over ({result['status']}): marple show {path} prints what came of it, "
            f"marple play start {result['case']} begins another"
        )
    return path


def _leave_if_over(path: Path, *, as_json: bool) -> None:
    """Print the result of a run that is over, and exit."""
    from marple.agent.games.client import ending

    told = ending(path)
    if told is None:
        return
    if as_json:
        _print(told)
    else:
        _print_ending(told["result"], path)
    sys.exit(0)


def _own(run: str, runs: Path) -> Path:
    """The folder of a run that is played from the shell."""
    from marple.agent.games.client import SHELL
    from marple.traces import find_run

    folder = find_run(runs, run)
    if folder.spec.get("investigator") != SHELL:
        raise UsageError(
            f"the run {run} is played by {folder.spec.get('investigator')}, not from the shell; "
            f"marple show {folder.path} prints it, marple resume {folder.path} goes on with it"
        )
    return folder.path


def _case(typed: str) -> str:
    """A case file as a full path, since the process that plays is not in this folder for ever."""
    return str(Path(typed).resolve()) if Path(typed).is_file() else typed


def _name(path: Path, runs: Path) -> str:
    """What a person types for a run: its id in the default folder, else its path."""
    return path.name if runs == Path("runs") and (runs / path.name).exists() else str(path)


def _brief(tool: dict[str, Any]) -> dict[str, Any]:
    return {"name": tool["name"], "rung": tool["rung"], "summary": tool["summary"]}


def _without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def _print(record: dict[str, Any]) -> None:
    print(json.dumps(record))


def _say(text: str) -> None:
    print(f"marple: {text}", file=sys.stderr)
