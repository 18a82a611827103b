"""``marple run --investigator human``: a person plays at the terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from marple.errors import UsageError

if TYPE_CHECKING:
    from marple.agent.configuration import RunConfig
    from marple.agent.games.game import Game
    from marple.traces import RunFolder

__all__ = ["HUMAN", "play_at_terminal", "resume_outside"]

HUMAN = "human"

_ELSEWHERE = {"shell": "marple play status {}", "mcp": "marple serve-mcp --resume {}"}


def play_at_terminal(config: RunConfig, budget: str | None, *, as_json: bool) -> int:
    """Play a run from its start; returns the exit code.

    Args:
        config: what is played.
        budget: the limits that were typed.
        as_json: refused, for the person reads what is printed.

    Raises:
        UsageError: ``as_json`` is set, or a model is named.
    """
    from marple.agent.games.game import Game, for_outside
    from marple.agent.games.seat import Seat

    if as_json:
        raise UsageError(
            "--json prints nothing that a person could play by; leave it out, or use marple play, which has --json"
        )
    if config.model is not None:
        raise UsageError(f"a person plays, not a model; leave out --model {config.model}")
    return _play(
        Game(
            for_outside(config, budget),
            Seat(HUMAN),
            building=lambda stage: print(f"building the target: {stage}", flush=True),
        )
    )


def resume_outside(folder: RunFolder) -> int | None:
    """Go on with a run that a person began at the terminal; returns the exit code, or None for a run of another's.

    Raises:
        UsageError: its player came from a shell or over MCP, and goes on there.
    """
    player = folder.spec.get("investigator")
    if folder.result is not None or player not in (HUMAN, *_ELSEWHERE):
        return None
    if player != HUMAN:
        raise UsageError(f"the run is played by {player}; {_ELSEWHERE[player].format(folder.path)} goes on with it")
    from marple.agent.games.game import Game
    from marple.agent.games.seat import Seat

    return _play(Game.again(folder.path, Seat(HUMAN)), folder.path)


def _play(game: Game, path: Path | None = None) -> int:
    from marple.agent.games.terminal import Terminal
    from marple.cli.verdict import print_verdict
    from marple.tasks.outcome import is_scored

    asyncio.run(Terminal(game).play(path))
    ended = game.outcome()
    if ended is None or ended.result is None:
        print(f"Put aside. Go on with: marple resume {game.folder.path if game.folder else path}")
        return 130
    print_verdict(ended.result, ended.path)
    return 0 if is_scored(ended.status, answered=bool(ended.result["answer"])) else 3
