"""A game at the terminal: a person types commands and reads what comes of them, with the same tools and budget."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marple.agent.games import told, words
from marple.agent.games.game import Game
from marple.agent.games.screen import Aside, Completion, ask, chance, harness, readable, show, whole
from marple.agent.games.typed import fill_form, read_arguments
from marple.agent.models import ToolCall
from marple.errors import ToolError
from marple.tools.visible import visible

__all__ = ["Terminal"]

_HELP = """\
  TOOL key=value ...    run a tool; or TOOL {JSON}. A list: the key again, as in prompts="hi" prompts="who are you?"
  help TOOL             what it takes, with an example; help alone lists the tools
  brief, budget, notes  what is asked; what is left; your plan, hypotheses, predictions and experiments
  last                  the last result again
  submit                your answer, asked field by field; or submit {JSON}
  quit                  put the game aside (also Ctrl-C, Ctrl-D); marple resume goes on with it
TAB completes the names of tools and arguments."""

_COMMANDS = ("help", "brief", "budget", "notes", "last", "submit", "quit")


class Terminal:
    """Plays a game with whoever types on standard input, a pipe included.

    Args:
        game: not yet begun.
    """

    def __init__(self, game: Game) -> None:
        self._game = game
        self._draft: dict[str, Any] | None = None
        """The answer as it was last filled in, while it was refused."""

    async def play(self, path: Path | None = None) -> None:
        """Begin, or go on with the run in ``path``, and play until the run is over or put aside.

        Raises:
            MarpleError: it could not be started or broke off.
        """
        with Completion(self._complete):
            await self._game.begin(path)
            self._show_start()
            try:
                while self._game.phase in ("investigate", "wrap_up", "forecast"):
                    await self._turn()
            except Aside:
                await self._game.stop()

    async def _turn(self) -> None:
        forecasting = self._game.phase == "forecast"
        tool, arguments = self._forecasts() if forecasting else self._next_call()
        try:
            await self._game.move([ToolCall.of(tool, arguments, id=secrets.token_hex(8))])
        except ToolError as error:
            show(str(error))
            return
        if self._game.phase in ("investigate", "wrap_up"):
            self._show_last()
        if tool == "submit":
            self._draft = arguments

    # ------------------------------------------------------------------------------------------ asking

    def _next_call(self) -> tuple[str, dict[str, Any]]:
        """Answer commands until one is a call."""
        while True:
            command, _, rest = ask("\nmarple> ").strip().partition(" ")
            tools = {tool["name"]: tool for tool in told.tools_of(self._game) if tool["name"] != "forecast"}
            try:
                if command == "submit" and not rest.strip():
                    return command, self._form(tools[command]["parameters"])
                if command in tools:
                    return command, read_arguments(whole(rest), tools[command]["parameters"])
                self._command(command, rest.strip(), tools)
            except ToolError as error:
                show(str(error))

    def _command(self, command: str, rest: str, tools: dict[str, dict[str, Any]]) -> None:
        if command == "quit":
            raise Aside
        if command == "help" and rest:
            self._help(rest, tools)
        elif command == "help":
            show(f"{words.tools_text(list(tools.values()))}\n\n{_HELP}")
        elif command == "brief":
            show(told.brief(self._game))
        elif command == "budget":
            show(words.budget_line(told.status(self._game)["budget"]))
        elif command == "notes":
            assert self._game.folder is not None
            show(words.notebook_text(told.notebook_of(self._game.folder.events())))
        elif command == "last":
            self._show_last()
        elif command:
            known = ", ".join((*_COMMANDS, *(name for name in tools if name not in _COMMANDS)))
            raise ToolError(f"there is no {command!r}; there are {known}")

    def _help(self, name: str, tools: dict[str, dict[str, Any]]) -> None:
        if name not in tools:
            raise ToolError(f"there is no tool {name!r}; there are {', '.join(tools)}")
        show(words.tool_text(tools[name], name, plain=True))

    def _form(self, schema: dict[str, Any]) -> dict[str, Any]:
        show("Your answer, field by field. Nothing typed leaves a field out, or keeps what stands in brackets.")
        while True:
            filled: dict[str, Any] = fill_form(schema, ask, show, before=self._draft)
            self._draft = filled
            show(json.dumps(filled, indent=2, ensure_ascii=False))
            said = ask("submit this? [y / n to go through it again / quit to leave the form] ").strip().lower()
            if said in ("y", "yes"):
                return filled
            if said in ("q", "quit"):
                raise ToolError("nothing was submitted; `submit` takes up the form again")

    def _forecasts(self) -> tuple[str, dict[str, Any]]:
        """The held-out questions, one at a time."""
        questions = self._game.seat.questions or ()
        kind = "that reply A is the target's" if questions and "reply_a" in questions[0] else "that it happens"
        note = told.reply(self._game)["results"]
        show(harness(note[-1]["text"]) if note else "")
        chances: list[float] = []
        for place, question in enumerate(questions, start=1):
            show(f"\n{place} of {len(questions)}")
            for name, value in question.items():
                if name != "id":
                    show(f"  {name.replace('_', ' '):12} {visible(str(value))}")
            chances.append(chance(f"  probability {kind}, 0 to 1: "))
        return "forecast", {"probabilities": chances}

    # ------------------------------------------------------------------------------------------ showing

    def _show_start(self) -> None:
        if self._game.phase not in ("investigate", "wrap_up"):
            return
        assert self._game.folder is not None
        show(f"run {self._game.run_id}")
        if told.reply(self._game)["results"]:
            self._show_last()
        else:
            show(told.brief(self._game))
            show(words.budget_line(told.status(self._game)["budget"]))
        show(f"\n{_HELP}")

    def _show_last(self) -> None:
        answer = told.reply(self._game)
        for result in answer["results"]:
            show(readable(result["text"]))
        if answer["notes"] and answer["results"]:
            show(answer["notes"])
        show(words.budget_line(answer["budget"]))

    def _complete(self, line: str) -> Sequence[str]:
        """What the word at the end of a line may become."""
        tools = {tool["name"]: tool for tool in told.tools_of(self._game) if tool["name"] != "forecast"}
        head, _, word = line.rpartition(" ")
        command = head.split(" ")[0]
        if not head or command == "help":
            return [f"{name} " for name in (*tools, *_COMMANDS) if name.startswith(word)]
        named = tools.get(command, {}).get("parameters", {}).get("properties", {})
        return [f"{name}=" for name in named if name.startswith(word)]
