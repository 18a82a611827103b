"""A process that plays a run of 12 turns, or goes on with one; the tests kill it.

``python scripted_run.py start TARGET RUNS`` or ``python scripted_run.py resume RUN``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import AssistantMessage, Message, ModelTurn, ScriptedModel, ToolCall
from marple.agent.run import launch, resume

TURNS = 12
PAUSE_SECONDS = 0.2
"""Before each turn, so that on a busy machine the run is not over before the test has killed it."""
CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 4}


def script(messages: Sequence[Message]) -> ModelTurn:
    """A turn that depends on nothing but how many there were, so that a new process goes on with the same."""
    time.sleep(PAUSE_SECONDS)
    turn = sum(isinstance(message, AssistantMessage) for message in messages)
    note = {"action": "add", "statement": f"turn {turn}", "credence": 0.5}
    calls = (ToolCall.of("hypothesis", note, id=f"h{turn}"), ToolCall.of("chat", CHAT, id=f"c{turn}"))
    answer = {"nothing_hidden": 0.7, "candidates": [], "claims": [], "summary": "done"}
    return ModelTurn(tool_calls=calls if turn < TURNS else (ToolCall.of("submit", answer, id="s"),))


async def main(command: str, *paths: str) -> None:
    player = LlmInvestigator(ScriptedModel(script))
    if command == "start":
        config = RunConfig.of(target=paths[0], investigator="llm", runs=Path(paths[1]))
        await launch(config, investigator=player)
    else:
        await resume(Path(paths[0]), investigator=player)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
