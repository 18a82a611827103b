"""A workbench for a target that is an endpoint: black-box tools on the host, which send text and read text.

No worker is started, for nothing of the target's is loaded: its weights stay where they are.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from marple.agent.bench import MAX_DEATHS, WorkerStart
from marple.agent.endpoint_target import ENDPOINT_KEY_VARIABLE, EndpointTarget, Line
from marple.agent.models import load_prices, open_model
from marple.agent.models.adapter import Adapter
from marple.errors import EndpointError, ToolError, UnknownNameError, UsageError
from marple.sandboxes import OnProgress, ToolInfo
from marple.tasks.endpoints import Endpoints, endpoint_tools
from marple.tasks.outcome import Ending
from marple.tools.calls import Call, during
from marple.tools.contract import Cost, ToolResult, ToolSpec, tool_spec

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["EndpointBench", "open_endpoint"]

_NO_CODE = "the target is an endpoint, and there is no copy of it that code could run on"


def open_endpoint(name: str, base_url: str | None, *, max_retries: int = 4) -> Adapter[Any]:
    """The adapter of a target that is an endpoint; nothing is sent yet.

    Raises:
        UsageError: the name or the address is none, or the address holds a password.
        MissingKeyError: the provider's own host is meant and no key is set.
    """
    if base_url is not None and "@" in urlsplit(base_url).netloc:
        raise UsageError(
            f"the address of {name} holds a user or a password, which would be written into the run: put the key "
            f"into the environment variable {ENDPOINT_KEY_VARIABLE} instead"
        )
    return open_model(name, base_url=base_url, max_retries=max_retries, key_variable=ENDPOINT_KEY_VARIABLE)


class EndpointBench:
    """One endpoint, and perhaps a second one as its reference; must be made on the event loop it is used on.

    Args:
        names: the endpoints.
        corpus: a JSONL file of transcripts, or None.
        max_retries: how often a request that failed is made again, after as long as the endpoint says.
    """

    when_lost: Ending = "target_unreachable"
    python_reason = _NO_CODE

    def __init__(self, names: Endpoints, *, corpus: Path | None = None, max_retries: int = 4) -> None:
        def line(name: str, url: str | None) -> Line:
            return Line(open_endpoint(name, url, max_retries=max_retries), asyncio.get_running_loop())

        self._target = line(names.target, names.target_url)
        self._reference = None if names.reference is None else line(names.reference, names.reference_url)
        self._corpus = corpus
        self._specs = _specs(names, corpus=corpus)
        self.tools = {name: _info(spec) for name, spec in self._specs.items()}
        self.facts: dict[str, Any] = {"endpoint": True, **names.to_dict()}
        self.stamp: dict[str, Any] = {
            "backend": "endpoint",
            "isolation": "no worker: the target's weights are not here, its text is read on the host",
            "reproducible": False,
            "replies": "an endpoint may answer the same request otherwise, whatever the seed",
            "draws": {"temperature, top_p and seed are sent": self._target.model.draws},
            "priced": {name: name in load_prices() for name in (names.target, names.reference) if name is not None},
            "tokens": "as the endpoint reports them; where it reports none, one for every four characters",
        }
        self.starts = [WorkerStart("tools", None, self.stamp)]
        self.failures = 0
        """Calls in a row that got no reply."""

    @property
    def code_tools(self) -> dict[str, ToolInfo]:
        """None: there is no worker."""
        return {}

    @property
    def lost(self) -> bool:
        """Whether call after call got no reply."""
        return self.failures >= MAX_DEATHS

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        seed: int,
        on_progress: OnProgress | None = None,
        fresh: bool = False,
    ) -> ToolResult:
        """Run one tool against the endpoint; any number of calls may be under way. Every call is ``fresh``.

        Raises:
            ToolError: the tool or the endpoint refused the arguments.
            EndpointError: the endpoint gave no reply after all retries.
        """
        if tool not in self._specs:
            raise ToolError(str(UnknownNameError("tool", tool, self._specs)))
        reference = None if self._reference is None else EndpointTarget(self._reference)
        target = EndpointTarget(self._target, reference=reference, corpus=self._corpus)
        before = self.failures
        work = functools.partial(self._specs[tool].run, cast("Target", target), arguments, seed=seed)
        try:
            with during(Call(on_progress=on_progress)):
                result = await asyncio.to_thread(work)
        except EndpointError as error:
            # Calls that were under way together fail together; it is one failure.
            self.failures = max(self.failures, before + 1)
            spent = [one.tokens for one in (target, target.reference) if one is not None]
            raise EndpointError(str(error), tokens=(sum(t[0] for t in spent), sum(t[1] for t in spent))) from error
        self.failures = 0
        return replace(result, cost=_priced(result.cost, target, reference))

    async def call_code(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        owner: str,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> ToolResult:
        """Refuse: nothing of an agent's runs where the endpoint is called from.

        Raises:
            ToolError: always.
        """
        raise ToolError(f"{tool} is not offered: {_NO_CODE}")

    async def leave(self, owner: str) -> None:
        """Nothing is kept for a run."""

    async def changed(self) -> str:
        """What answers behind an endpoint cannot be checked; the stamp says so."""
        return ""

    async def close(self) -> None:
        """Release the connections."""
        await self._target.model.close()
        if self._reference is not None:
            await self._reference.model.close()


def _priced(cost: Cost, target: EndpointTarget, reference: EndpointTarget | None) -> EndpointCost:
    """What a call cost, in US dollars too; None where the price or the tokens of one reply are unknown."""
    spent = [one.usd for one in (target, reference) if one is not None]
    known = [usd for usd in spent if usd is not None]
    return EndpointCost(**vars(cost), usd=math.fsum(known) if len(known) == len(spent) else None)


def _specs(names: Endpoints, *, corpus: Path | None) -> dict[str, ToolSpec]:
    specs = {}
    there = {"reference": names.reference is not None, "corpus": corpus is not None}
    for name in endpoint_tools(names):
        spec = tool_spec(getattr(importlib.import_module(f"marple.tools.experiments.{name}"), name))
        if all(there[need] for need in spec.needs):
            specs[name] = replace(spec, description=f"{spec.description}\n\n{_ON_AN_ENDPOINT}")
    return specs


@dataclass(frozen=True)
class EndpointCost(Cost):
    """What a call used, and what that cost."""

    usd: float | None = None
    """US dollars; None where the price or a count of tokens is unknown, never 0 for unknown."""


_ON_AN_ENDPOINT = (
    "The target is an endpoint: a reply that it refused has the finish refusal, and the same call may give other "
    "replies another time."
)


def _info(spec: ToolSpec) -> ToolInfo:
    return ToolInfo(
        name=spec.name,
        description=spec.description,
        rung=spec.rung,
        parallel=spec.parallel,
        needs=list(spec.needs),
        parameters=dict(spec.parameters),
    )
