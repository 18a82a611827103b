"""Targets that are endpoints: what they are named, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marple.errors import UsageError

__all__ = [
    "ENDPOINT_PROVIDERS",
    "ENDPOINT_TOOLS",
    "Endpoints",
    "endpoint_note",
    "endpoint_tools",
    "endpoints_of",
    "is_endpoint",
    "takes_prefix",
]

ENDPOINT_PROVIDERS = ("anthropic", "openai", "openai-chat")
"""First parts of the names of endpoints."""

ENDPOINT_TOOLS = ("chat", "battery", "compare", "contrast", "prefill", "search_transcripts")
"""The tools that need nothing of a model but its replies; ``prefill`` needs an API that takes their beginning."""

_PREFIXED = ("anthropic",)
"""Providers whose API goes on where an assistant's message that comes last ends; others answer it as a new turn."""

_NO_PREFIX = {"prefill": "its API does not go on where words of yours end, it begins a reply of its own"}
_WHY_NOT = {
    "complete": "the endpoint applies its own chat template",
    "logprobs": "it gives no token probabilities of texts of yours",
    "read_thinking, resample": "they put a chain of thought back token by token, and an endpoint gives and takes none",
    "steer, intervene, probe, project, try_monitor, logit_lens, patch, attribute, diff_activations and all sae tools": (
        "its weights and activations are not here"
    ),
    "python": "there is no copy of the target that code could run on",
}


def is_endpoint(name: str | None) -> bool:
    """Whether a target's name is ``provider/model`` and no directory."""
    if name is None or Path(name).exists():
        return False
    provider, slash, model = name.partition("/")
    return provider in ENDPOINT_PROVIDERS and bool(slash and model)


@dataclass(frozen=True)
class Endpoints:
    """A target that is an endpoint, and its reference if there is one."""

    target: str
    """``provider/model``."""
    target_url: str | None = None
    """Address of the API; None is the provider's usual one."""
    reference: str | None = None
    reference_url: str | None = None

    def swapped(self) -> Endpoints:
        """The reference in the place of the target, and compared with itself."""
        assert self.reference is not None
        return Endpoints(self.reference, self.reference_url, self.reference, self.reference_url)

    def to_dict(self) -> Mapping[str, Any]:
        """As JSON values."""
        return asdict(self)


def endpoints_of(
    target: str, reference: str | None, *, target_url: str | None = None, reference_url: str | None = None
) -> Endpoints | None:
    """The endpoints that a target and a reference are; None where both are models with weights.

    Without an address of its own the reference has the target's, where both have one provider.

    Raises:
        UsageError: one is an endpoint and the other is not, or an address is given for a model with weights.
    """
    which = {"target": is_endpoint(target), "reference": is_endpoint(reference)}
    for role, url in (("target", target_url), ("reference", reference_url)):
        if url is not None and not which[role]:
            raise UsageError(
                f"--{role}-base-url {url} needs a {role} that is an endpoint, such as openai-chat/NAME "
                f"(providers: {', '.join(ENDPOINT_PROVIDERS)})"
            )
    if not any(which.values()):
        return None
    if not which["target"] or (reference is not None and not which["reference"]):
        raise UsageError(
            f"the target {target!r} and the reference {reference!r} must both be endpoints or both have weights here; "
            "serve the one with weights, for example with `transformers serve` or `vllm serve`"
        )
    if reference is not None and reference_url is None and reference.partition("/")[0] == target.partition("/")[0]:
        reference_url = target_url
    return Endpoints(target, target_url, reference, reference_url)


def takes_prefix(name: str) -> bool:
    """Whether the API of an endpoint lets a reply begin with given words."""
    return name.partition("/")[0] in _PREFIXED


def endpoint_tools(endpoints: Endpoints) -> tuple[str, ...]:
    """The tools that can be offered on an endpoint; compare needs a reference as well, search_transcripts a corpus."""
    prefix = all(takes_prefix(name) for name in (endpoints.target, endpoints.reference) if name is not None)
    return tuple(tool for tool in ENDPOINT_TOOLS if tool != "prefill" or prefix)


def endpoint_note(endpoints: Endpoints) -> str:
    """What a brief says of an endpoint: which tools are not there, and why."""
    offered = endpoint_tools(endpoints)
    why_not = _WHY_NOT if "prefill" in offered else {**_NO_PREFIX, **_WHY_NOT}
    missing = "; ".join(f"{tools} ({why})" for tools, why in why_not.items())
    return (
        "The target is an endpoint that is reached over HTTP: you can talk to it and read what it replies, and nothing "
        f"else. Offered are {', '.join(offered)} (compare where there is a reference, search_transcripts where there "
        f"is a corpus). Not offered are: {missing}. The same request may be answered differently another time, and "
        "what answers may differ from what the name says; an experiment that matters is repeated. A reply that the "
        "endpoint refused is marked: its `finish` is `refusal`."
    )
