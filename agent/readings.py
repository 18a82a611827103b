"""Readings: what a call shows in a number, by name, so that a claim can state it and the same call made again be read.

Every reading is of the structured result of one call. It may be limited to the prompts of a condition, and may be about
a word; where a result has nothing to read, it is None.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marple.agent.parts import Of, replies_of_call
from marple.errors import ToolError
from marple.tasks.claims import Claim

__all__ = ["NUMBERS", "check_shows", "read_number"]

LIKELIER = math.log(20)
"""Nats by which a text must be likelier under the target than under its reference to count as ``likelier``."""

Data = Mapping[str, Any]


def _divergence(data: Data, of: Of) -> float | None:
    if isinstance(data.get("divergence"), Mapping):  # of a comparison of activations, by condition
        named = {name: value for name, value in data["divergence"].items() if of.counts({"condition": name})}
        return _mean(list(named.values()))
    return _mean([row["divergence"]["nats_per_token"] for row in _rows_with_divergence(data, of)])


def _outliers(data: Data, of: Of) -> float | None:
    return _mean([float(row["divergence"]["outlier"]) for row in _rows_with_divergence(data, of)])


def _peak(data: Data, of: Of) -> float | None:
    return max((row["divergence"]["nats_per_token"] for row in _rows_with_divergence(data, of)), default=None)


def _rows_with_divergence(data: Data, of: Of) -> list[Data]:
    return [row for row in data.get("rows", ()) if row.get("divergence") and of.counts(row)]


def _found(data: Data, of: Of) -> float | None:
    """How many words, tokens or features the target, or the first set, has more of."""
    rows = data.get("rows")
    if "excess" in data:
        rows = [row for some in data["excess"].values() for row in some]
    if rows is None:
        return None
    return float(sum(row["found"] and _rise(row) > 0 for row in rows if of.counts(row)))


def _rise(row: Data) -> float:
    if "excess" in row:
        return float(row["excess"] - (row["elsewhere"] or 0.0))
    return float(row.get("log_odds", row.get("score", 0.0)))


def _gap(data: Data, of: Of) -> float | None:
    """The largest rise of a word, or of any: in share of replies, or for activations in tokens per reply."""
    rows = data.get("rows")
    if "excess" in data:
        rows = [row for some in data["excess"].values() for row in some]
    if rows is None:
        return None
    first, second = ("target", "reference") if any("target_count" in row for row in rows) else ("first", "second")
    rises = [
        _rise(row) if "excess" in row else _share(row, first) - _share(row, second)
        for row in rows
        if of.counts(row) and (not of.word or _name(row) == of.word.strip().casefold())
    ]
    return max(rises, default=0.0)


def _name(row: Data) -> str:
    return str(row["token"] if "excess" in row else row["ngram"]).strip().casefold()


def _share(row: Data, name: str) -> float:
    return float(row[f"{name}_count"] / row[f"{name}_n"]) if row[f"{name}_n"] else 0.0


def _differences(data: Data) -> list[float]:
    return [row["difference"] for row in data.get("continuations", ()) if "difference" in row]


def _difference(data: Data, of: Of) -> float | None:
    return _mean(_differences(data))


def _likelier(data: Data, of: Of) -> float | None:
    return _mean([float(value > LIKELIER) for value in _differences(data)])


def _probability(data: Data, of: Of) -> float | None:
    """Of a word, or of what is likeliest, as the last layer has it at the last position."""
    cells = data.get("cells") or ()
    if not cells:
        return None
    last = max(cells, key=lambda cell: (cell["layer"], cell["position"]))
    wanted = of.word.strip().casefold()
    tokens = [one for one in last["tokens"] if not wanted or one["token"].strip().casefold() == wanted]
    return max((float(one["probability"]) for one in tokens), default=0.0)


def _same_start(data: Data, of: Of) -> float | None:
    """Share of the replies that begin with the word that most begin with."""
    replies = replies_of_call(data, of)
    starts = Counter((re.findall(r"\w+", reply.casefold()) or [""])[0] for reply in replies)
    return max(starts.values()) / len(replies) if replies else None


def _agreement(data: Data, of: Of) -> float | None:
    return _at(data, "controls", "difference", "value")


def _distance(data: Data, of: Of) -> float | None:
    if "change" in data and isinstance(data["change"], Mapping):
        return _at(data, "change", "distance")
    distances = [row["importance"]["distance"] for row in data.get("sentences", ())]
    return max(distances, default=None)


def _auroc(data: Data, of: Of) -> float | None:
    return _at(data, "auroc", "auroc") if isinstance(data.get("auroc"), Mapping) else _at(data, "auroc")


def _closed(data: Data, of: Of) -> float | None:
    """0 where the difference does no more than random vectors do."""
    shares = [one["closed"] if one["outside_controls"] else 0.0 for one in data.get("steering", ())]
    return max(shares, default=None)


def _changed(data: Data, of: Of) -> float | None:
    pairs = list(zip(data.get("replies", ()), data.get("without_edits", ()), strict=False))
    return _mean([float(edited != plain) for edited, plain in pairs])


def _hits(data: Data, of: Of) -> float | None:
    """How many transcripts match, as far as that is known."""
    return float(data.get("matching", len(data["hits"]))) if "hits" in data else None


def _at(data: Data, *path: str) -> float | None:
    value: Any = data
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


_TALK = ("chat", "battery", "compare", "contrast", "prefill", "complete", "intervene")
NUMBERS: Mapping[str, tuple[Sequence[str], Callable[[Data, Of], float | None]]] = {
    "divergence": (("battery", "diff_activations"), _divergence),
    "outliers": (("battery",), _outliers),
    "peak": (("battery",), _peak),
    "found": (("compare", "contrast", "diff_activations", "sae_compare"), _found),
    "gap": (("compare", "contrast", "diff_activations"), _gap),
    "difference": (("logprobs",), _difference),
    "likelier": (("logprobs",), _likelier),
    "probability": (("logit_lens",), _probability),
    "same_start": (_TALK, _same_start),
    "agreement": (("read_thinking",), _agreement),
    "distance": (("resample",), _distance),
    "auroc": (("probe", "try_monitor"), _auroc),
    "change": (("steer", "sae_steer"), lambda data, of: _at(data, "change")),
    "closed": (("diff_activations",), _closed),
    "largest_z": (("project",), lambda data, of: _at(data, "largest_z")),
    "changed": (("intervene",), _changed),
    "hits": (("search_transcripts",), _hits),
}
"""By name, the tools whose results have the number, and how it is read."""


def read_number(name: str, data: Data, of: Of) -> float | None:
    """A number of a call's result; None where this result has none."""
    return NUMBERS[name][1](data, of)


def check_shows(claim: Claim, tools: Mapping[str, str]) -> None:
    """Raise a ToolError, fit for the investigator, where a claim states a number that its call's result has not.

    Args:
        claim: it cites calls that there are.
        tools: by id of a call, its tool.
    """
    shows = claim.shows
    if shows is None or not shows.number:
        return
    tool = tools[shows.call]
    valid = [name for name, (some, _) in NUMBERS.items() if tool in some]
    if shows.number not in valid:
        raise ToolError(
            f"shows: {shows.call} is a call of {tool}, whose result has no number {shows.number!r}; "
            + (f"valid: {', '.join(valid)}" if valid else "state a word of the replies of another call instead")
        )
