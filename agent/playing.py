"""Running a session through the graph: from its checkpoint, until it ends or the process is asked to stop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from marple.agent.draining import Drain
from marple.agent.session import Session
from marple.agent.supervising import Stopped

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.runtime import RunControl

__all__ = ["play_graph"]


async def play_graph(session: Session) -> str | None:
    """Play the loop; returns the ending, or None when the process was asked to stop."""
    # LangGraph would upload traces, ground truth among them, to a service when these are set.
    os.environ.update(LANGSMITH_TRACING="false", LANGCHAIN_TRACING_V2="false", LANGGRAPH_STRICT_MSGPACK="true")
    from langgraph.errors import GraphDrained
    from langgraph.runtime import RunControl

    from marple.agent.checkpoints import LatestCheckpoint
    from marple.agent.graph import State, build_graph

    control = RunControl()
    async with LatestCheckpoint.from_conn_string(str(session.folder.path / "checkpoint.sqlite")) as saver:
        graph = build_graph(saver)
        thread: RunnableConfig = {"configurable": {"thread_id": session.folder.run_id}}
        begun = (await graph.aget_state(thread)).values
        state = None if begun else State(turn=0, next="think", ending="")
        with _draining(session, control):
            try:
                final = await graph.ainvoke(state, thread, context=session, durability="sync", control=control)
            except (GraphDrained, Stopped):
                return None
    return str(final["ending"])


@contextlib.contextmanager
def _draining(session: Session, control: RunControl) -> Iterator[None]:
    """Whoever plays several runs asks all to stop; a run alone is asked by the first SIGINT or SIGTERM."""
    if session.drain is not None:
        with session.drain.holding(control):
            yield
        return
    alone = Drain()
    with alone.on_signals(), alone.holding(control):
        yield
