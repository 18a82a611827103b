"""The loop: think, approve, act, observe, check, and back, until there is an answer; then conclude.

Every node first looks into the event log and does only what is not recorded yet, so that a run that was killed
anywhere goes on from its last event. The graph's own state is three small values.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, Protocol, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from marple.agent import acting, checking, forecasting, thinking
from marple.agent.session import Session
from marple.agent.supervising import stand_by

__all__ = ["State", "build_graph"]


class State(TypedDict):
    """What LangGraph checkpoints."""

    turn: int
    """Turns begun."""
    next: Literal["think", "conclude"]
    ending: str
    """The run's outcome, empty while it is played."""


async def think(state: State, runtime: Runtime[Session]) -> dict[str, Any]:
    """The investigator takes its turn."""
    turn = state["turn"] + 1
    return {"turn": turn, "ending": await thinking.take_turn(runtime.context, turn)}


async def approve(state: State, runtime: Runtime[Session]) -> dict[str, Any]:
    """Each call of the turn is allowed or refused before any is made."""
    await acting.approve_calls(runtime.context, state["turn"])
    return {}


async def act(state: State, runtime: Runtime[Session]) -> dict[str, Any]:
    """The allowed calls are made, in the order in which they were asked for."""
    await acting.make_calls(runtime.context, state["turn"])
    return {}


async def observe(state: State, runtime: Runtime[Session]) -> dict[str, Any]:
    """Predictions meet what the experiments showed."""
    checking.settle_predictions(runtime.context)
    return {}


async def check(state: State, runtime: Runtime[Session]) -> dict[str, Any]:
    """Is there an answer, is a limit reached, is a check-in due?"""
    ending = state["ending"] or checking.decide_next(runtime.context, state["turn"])
    return {"ending": ending, "next": "conclude" if ending else "think"}


async def conclude(state: State, runtime: Runtime[Session]) -> dict[str, Any]:
    """The frozen answer is put to the test of forecasts."""
    await forecasting.ask_forecasts(runtime.context, state["turn"])
    return {}


class _Node(Protocol):
    __name__: str

    async def __call__(self, state: State, runtime: Runtime[Session]) -> dict[str, Any]: ...


def _standing_by(node: _Node) -> _Node:
    """The node, which waits before it begins for as long as the run is to be paused."""

    @functools.wraps(node)
    async def waiting(state: State, runtime: Runtime[Session]) -> dict[str, Any]:
        await stand_by(runtime.context.folder, lambda: runtime.drain_requested)
        return await node(state, runtime)

    return waiting


def build_graph(
    checkpointer: BaseCheckpointSaver[Any] | None,
) -> CompiledStateGraph[State, Session, State, State]:
    """The compiled loop; run it with a ``Session`` as its context."""
    graph = StateGraph(State, context_schema=Session)
    for node in (think, approve, act, observe, check, conclude):
        graph.add_node(node.__name__, _standing_by(node))
    graph.add_edge(START, "think")
    for before, after in (("think", "approve"), ("approve", "act"), ("act", "observe"), ("observe", "check")):
        graph.add_edge(before, after)
    graph.add_conditional_edges("check", lambda state: state["next"], ["think", "conclude"])
    graph.add_edge("conclude", END)
    return graph.compile(checkpointer=checkpointer)
