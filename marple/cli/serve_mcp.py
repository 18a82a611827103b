"""``marple serve-mcp``: a game for any agent that is a client of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.cli.run import ONLY_OPTION, RUNS_OPTION, WITHOUT_OPTION
from marple.errors import UsageError

if TYPE_CHECKING:
    from marple.agent.games.game import Game

__all__ = ["serve_mcp"]


def serve_mcp(
    case: Annotated[str | None, typer.Argument(help="Id of a case (see marple tasks), or a case file.")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this interrupted run instead of a new one.")] = None,
    http: Annotated[bool, typer.Option("--http", help="Streamable HTTP on 127.0.0.1 instead of stdio.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --http; 0 takes a free one.")] = 8765,
    budget: Annotated[str | None, typer.Option(help="Limits, for example calls=20,seconds=none.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every sample and draw.")] = 0,
    player: Annotated[str | None, typer.Option(help="Who plays, for the record: an agent's name and model.")] = None,
    approval: Annotated[str, typer.Option(help="Who approves calls: auto, or a policy file.")] = "auto",
    sandbox: Annotated[str, typer.Option(help="Isolation backend, or auto.")] = "auto",
    without: Annotated[list[str] | None, WITHOUT_OPTION] = None,
    only: Annotated[str | None, ONLY_OPTION] = None,
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
) -> None:
    """Serve one game to an agent: over stdio, or over HTTP on this machine with --http."""
    if (case is None) == (resume is None):
        raise UsageError("say what to play: a case such as hidden-goal/nano-01, or --resume RUN")
    if approval == "ask":
        raise UsageError("--approval ask needs a terminal of its own; say auto, or name a policy file")
    if resume is not None:
        game, path = _again(resume, runs)
    else:
        options: dict[str, Any] = {"seed": seed, "approval": approval, "sandbox": sandbox, "runs": runs}
        options |= {"without": without or [], "only": only}
        game, path = _new(str(case), budget, player, options), None
    from importlib.metadata import version

    from marple.agent.games.mcp_serving import serve_http, serve_stdio

    if http:
        asyncio.run(serve_http(game, path, version("marple"), port=port, say=_say))
    else:
        asyncio.run(serve_stdio(game, path, version("marple")))


def _new(case: str, budget: str | None, player: str | None, options: dict[str, Any]) -> Game:
    from marple.agent.configuration import RunConfig
    from marple.agent.games.game import Game, for_outside
    from marple.agent.games.seat import Seat

    config = RunConfig.of(case=case, investigator="mcp", budget=budget, **options)
    return Game(for_outside(config, budget), Seat("mcp", player), building=_say)


def _again(run: str, runs: Path) -> tuple[Game, Path]:
    from marple.agent.games.game import Game
    from marple.agent.games.seat import Seat
    from marple.traces import find_run

    folder = find_run(runs, run)
    said = folder.spec
    if said.get("investigator") != "mcp":
        raise UsageError(f"the run {run} is played by {said.get('investigator')}, not over MCP")
    if folder.result is not None:
        raise UsageError(f"the run {run} is over ({folder.result['status']}): marple show {folder.path} prints it")
    return Game.again(folder.path, Seat("mcp", said.get("model"))), folder.path


def _say(text: str) -> None:
    print(f"marple: {text}", file=sys.stderr, flush=True)
