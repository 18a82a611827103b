"""What was measured of what an answer hands in, beside its controls: the arms of an intervention, the sets of a
monitor, the transcripts that were planted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marple.traces.review.blocks import Block, Cell, Note, Table, bar, share
from marple.traces.review.fields import items, mapping, number, of
from marple.traces.review.opened import Opened

__all__ = ["measured_blocks", "trial_blocks"]

_SUBMITTED = ("submitted", "target")
_ABLE = "can: "
_MOST = 60


def trial_blocks(run: Opened) -> list[Block]:
    """The run's trial as tables; what it was scored by where the log has no trial."""
    for event in reversed(run.of_type("trial")):
        return measured_blocks(mapping(event.payload.get("measured")))
    rates = mapping(of(run.result, "scores", "rates"))
    return _arms({arm: mapping(one) for arm, one in rates.items()}) if rates else []


def measured_blocks(measured: Mapping[str, Any]) -> list[Block]:
    """Tables of a trial's measurements, what was handed in first and marked."""
    found: list[Block] = []
    if arms := mapping(measured.get("arms")):
        found += _arms({str(arm): mapping(one) for arm, one in arms.items()})
    if sets := mapping(measured.get("sets")):
        found += [_sets(mapping(sets), key) for key in ("auroc", "recall")]
    if planted := items(measured.get("planted")):
        said = ", ".join(str(one)[:40] for one in planted[:_MOST])
        found.append(Note(f"{len(planted)} of {measured.get('size')} were planted", said))
    return found


def _arms(arms: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    arms = {arm: _summed(one) for arm, one in arms.items()}
    columns = list(dict.fromkeys(str(name) for one in arms.values() for name in one))[:12]
    if not columns:
        return []
    lines = [[_name(arm), *(_rate(one.get(name)) for name in columns)] for arm, one in _in_order(arms)]
    heads = ["arm", *(name.replace("_", " ") for name in columns)]
    return [Table("Tried on a fresh worker, beside its controls", heads, lines)]


def _summed(arm: Mapping[str, Any]) -> dict[str, Any]:
    """The same with what the model can still do as one figure; the kinds of question are in the raw event."""
    kept = {str(name): one for name, one in arm.items() if not str(name).startswith(_ABLE)}
    able = [one for name, one in arm.items() if str(name).startswith(_ABLE)]
    if not able:
        return kept
    counts, sizes = ([number(of(one, key)) or 0.0 for one in able] for key in ("count", "n"))
    return {**kept, "capability": {"count": sum(counts), "n": sum(sizes)}}


def _sets(sets: Mapping[str, Any], key: str) -> Table:
    """A row for each monitor, a column for each set."""
    names = dict.fromkeys(str(name) for one in sets.values() for name in mapping(one))
    by_monitor = {name: {place: of(one, name, key) for place, one in sets.items()} for name in names}
    lines = [[_name(name), *(bar(one[place]) for place in sets)] for name, one in _in_order(by_monitor)]
    title = "AUROC on each set, beside the baselines" if key == "auroc" else "Recall at the allowed false alarms"
    note = "0.50 is chance" if key == "auroc" else ""
    return Table(title, ["monitor", *(str(place).replace("_", " ") for place in sets)], lines, note=note)


def _in_order(arms: Mapping[str, Mapping[str, Any]]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    return sorted(arms.items(), key=lambda one: one[0] not in _SUBMITTED)[:_MOST]


def _name(arm: str) -> Cell:
    return Cell(arm.replace("_", " "), "own" if arm in _SUBMITTED else "dim")


def _rate(measured: Any) -> Cell:
    count, n = number(of(measured, "count")), number(of(measured, "n"))
    if count is not None and n:
        return Cell(f"{count:.0f} of {n:.0f}", "num", bar=min(1.0, max(0.0, count / n)))
    real = number(measured)
    return bar(real) if real is not None and 0 <= real <= 1 else share(measured)
