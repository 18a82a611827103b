"""Whether a claim speaks of prompts that its call has, told when the answer is handed in: later nothing can be done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from marple.agent.effects import measure, stated_effect
from marple.agent.parts import Of, label_names
from marple.errors import ToolError
from marple.tasks.claims import Shows
from marple.tools.visible import quote

__all__ = ["check_part"]

Data = Mapping[str, Any]

_SHOWN = 10
"""Labels or prompts that a refusal names."""
_LONGEST = 100


def check_part(shows: Shows, data: Data) -> None:
    """Raise a ToolError, fit for the investigator, where the condition leaves nothing of the cited call.

    Args:
        shows: its call is one that was made.
        data: the structured data of that call.
    """
    # Data that the run had no room for cannot be looked into.
    if not (shows.condition or shows.without) or not data:
        return
    of = Of(shows.word, shows.condition, shows.without)
    parts = list(_labelled(data))
    # Some numbers are 0 of nothing; a share of no replies is None.
    spoken_of = not shows.number or not parts or any(of.counts(part) for part in parts)
    if spoken_of and measure(stated_effect(shows), data).value is not None:
        return
    said = " and ".join(f"{name} {getattr(shows, name)!r}" for name in ("condition", "without") if getattr(shows, name))
    raise ToolError(f"shows: {said} leaves nothing of {shows.call}; {_valid(parts, over_all=bool(shows.number))}")


def _valid(parts: list[Data], *, over_all: bool) -> str:
    from marple.tools.differences import EVERYTHING  # imports numpy, which showing a run does not need

    names = dict.fromkeys(str(name) for part in parts for name in label_names(part))
    labels = [name for name in names if name and (over_all or name != EVERYTHING)]
    if labels:
        return f"its labels, one of which a condition is, exactly: {_some(labels)}"
    prompts = list(dict.fromkeys(str(part["prompt"]) for part in parts if part.get("prompt")))
    if prompts:
        return f"its prompts have no labels, so that a condition is whole words of some of them: {_some(prompts)}"
    return "it has neither labels nor prompts: leave condition and without empty"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(quote(name, limit=_LONGEST) for name in names[:_SHOWN]) + more


def _labelled(data: Any) -> Iterator[Data]:
    """Every record with a label or a prompt; a comparison of activations names conditions by its divergences too."""
    if isinstance(data, list):
        for value in data:
            yield from _labelled(value)
    elif isinstance(data, Mapping):
        if label_names(data) or "prompt" in data:
            yield data
        for key, value in data.items():
            if key == "divergence" and isinstance(value, Mapping) and not label_names(data) and "prompt" not in data:
                yield from ({"condition": name} for name in value)
            else:
                yield from _labelled(value)
