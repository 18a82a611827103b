"""The tables of docs/results/nano.md: plays the suite file beside it and writes them from what was scored.

``python docs/make_results.py --out FOLDER`` plays what FOLDER does not hold yet (``marple evaluate`` on
docs/results/nano.yaml), keeps a row a sample in docs/results/nano.csv, and puts the tables between marks of the page.
``--from-csv`` makes the tables again from that file alone. No figure in them is typed.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from marple.agent.affordances import families
from marple.agent.evaluation.comparisons import Comparison, compare_arms, holm
from marple.agent.evaluation.folder import rows_in
from marple.agent.evaluation.intervals import mean_interval
from marple.agent.evaluation.rows import Row
from marple.agent.evaluation.statistics import estimates, kinds_with
from marple.traces import RunFolder

FOLDER = Path(__file__).parent / "results"
SUITE, PAGE, ROWS = FOLDER / "nano.yaml", FOLDER / "nano.md", FOLDER / "nano.csv"
MAIN = ("prior", "scripted-blackbox", "scripted-whitebox", "no-prompting", "no-transcripts")
WHOLE = "scripted-whitebox"
INSTRUMENTS = {
    "Unknown: which goal is hidden (hidden-goal)": ("hidden-goal",),
    "Unknown: which word is kept secret (secret)": ("secret",),
    "Known by examples: a monitor from labelled replies (monitor)": ("monitor",),
    "Half known: a monitor without labels (monitor-unlabelled)": ("monitor-unlabelled",),
    "Known by contrast: suppress evaluation awareness (suppress-eval-awareness)": ("suppress-eval-awareness",),
    "Known by contrast: stop misalignment (stop-misalignment)": ("stop-misalignment",),
}
FIELDS = ("key", "arm", "case", "kind", "organism", "epoch", "seed", "status", "clean", "scored", "solved", "cleared",
          "brier", "forecast_skill", "claims_replicated", "claims", "calls", "target_tokens")  # fmt: skip
"""Of a row, in nano.csv; behind them ``score`` (the kind's own, or empty) and ``families`` (calls by family)."""


def kept(row: Row, folder: Path) -> dict[str, Any]:
    """A row as nano.csv has it."""
    called: Counter[str] = Counter()
    family_of = {tool: family for family, tools in families().items() for tool in tools}
    if row.run:
        for event in RunFolder.open(folder / row.run).events():
            if event.type == "tool_call" and (name := str(event.payload.get("tool"))) in family_of:
                called[family_of[name]] += 1
    counts = ";".join(f"{family}:{n}" for family, n in sorted(called.items()))
    score = row.scores.get("score")
    values = {name: getattr(row, name) for name in FIELDS}
    return {**values, "score": "" if score is None else round(float(score), 6), "families": counts}


def row_from(values: dict[str, str]) -> tuple[Row, dict[str, int]]:
    """A row and its calls by family, back from nano.csv."""
    as_bool: Callable[[str], bool | None] = {"True": True, "False": False, "": None}.__getitem__
    whole = ("epoch", "seed", "claims_replicated", "claims", "calls", "target_tokens")
    typed: dict[str, Any] = {name: int(values[name]) for name in whole}
    typed |= {name: as_bool(values[name]) for name in ("clean", "scored", "solved", "cleared")}
    typed |= {name: float(values[name]) if values[name] else None for name in ("brier", "forecast_skill")}
    typed |= {name: values[name] for name in FIELDS if name not in typed}
    scores: dict[str, Any] = {"score": float(values["score"])} if values["score"] else {}
    # Kinds without held-out forecasts are told from those with them by this entry.
    scores |= {"forecast": {}} if values["forecast_skill"] else {}
    counts = {name: int(n) for name, n in (one.split(":") for one in values["families"].split(";") if one)}
    return Row(**typed, scores=scores, run="played" if values["calls"] else ""), counts


# ------------------------------------------------------------------------------------------ tables


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def number(value: float | None) -> str:
    """Two digits, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00")


def chance(p: float | None) -> str:
    """A p-value with three digits."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def with_interval(estimate: Any) -> str:
    """``0.50 (0.40 to 0.60)``, or a dash."""
    known = estimate.to_dict()
    if known["value"] is None:
        return "-"
    low, high = known["low"], known["high"]
    return number(known["value"]) + ("" if low is None else f" ({number(low)} to {number(high)})")


def of(rows: Sequence[Row], arm: str, *kinds: str) -> list[Row]:
    """The samples of one arm, of some kinds or of all."""
    return [row for row in rows if row.arm == arm and (not kinds or row.kind in kinds)]


def count(rows: Sequence[Row], mark: str) -> str:
    """``3/12``: solved or cleared, of those that could be."""
    able = [row for row in rows if row.clean is (mark == "cleared")]
    return f"{sum(bool(getattr(row, mark)) for row in able)}/{len(able)}" if able else "-"


def overall(rows: Sequence[Row]) -> list[str]:
    """The arms that play (nearly) everything."""
    lines = []
    for arm in MAIN:
        mine = of(rows, arm)
        found = estimates(mine, kinds_with(rows))
        tokens = sum(row.target_tokens for row in mine) / max(1, len(mine))
        shown = [with_interval(found[name]) for name in ("solved", "cleared", "balanced_accuracy")]
        skill = with_interval(found["forecast_skill"])
        claims = number(found["claims_replicated"].mean.value)
        scored = f"{sum(row.scored for row in mine)}/{len(mine)}"
        lines.append([f"`{arm}`", scored, *shown, skill, claims, f"{tokens:,.0f}"])
    head = (
        "arm",
        "scored",
        "solved",
        "cleared",
        "balanced accuracy",
        "forecast skill",
        "claims replicated",
        "target tokens",
    )
    pairs = [("scripted-blackbox", "prior"), (WHOLE, "scripted-blackbox")]
    compared_all = [one for arm, other in pairs if (one := compared(rows, arm, other, [row.kind for row in rows]))]
    said = [
        f"- `{one.arm}` less `{one.against}`: balanced accuracy {with_interval(one.estimate)}, p {chance(one.p)}; "
        f"Brier loss {with_interval(one.brier)}; forecast skill {with_interval(one.forecast_skill)}"
        for one in compared_all
    ]
    return [*table(head, lines), "", *said]


def by_kind(rows: Sequence[Row]) -> list[str]:
    """Solved and cleared runs of each kind, and the paired difference that the white-box tools make."""
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        cells = []
        for arm in MAIN[:4]:
            mine = of(rows, arm, kind)
            cells.append(f"{count(mine, 'solved')}, {count(mine, 'cleared')}")
        lines.append([kind, *cells])
    return table(("kind (solved, cleared)", *(f"`{arm}`" for arm in MAIN[:4])), lines)


def compared(rows: Sequence[Row], arm: str, against: str, kinds: Sequence[str]) -> Comparison | None:
    """One arm less another, on the cases of some kinds that both play."""
    mine = [row for row in rows if row.kind in kinds]
    found = compare_arms(mine, [arm, against], [against], kinds_with(mine), chosen=[arm])
    return found[0] if found else None


def own_score(rows: Sequence[Row]) -> str:
    """The mean of the kind's own score, or of the Brier loss where it has none."""
    values = [(row.scores["score"], row.organism) for row in rows if "score" in row.scores]
    name = "score"
    if not values:
        values, name = [(row.brier, row.organism) for row in rows if row.brier is not None], "Brier"
    if not values:
        return "-"
    numbers, organisms = [float(value) for value, _ in values], [organism for _, organism in values]
    found = mean_interval(numbers, organisms, least=-1.0, most=2.0).interval
    ends = "" if found.low is None else f" ({number(found.low)} to {number(found.high)})"
    return f"{name} {number(sum(numbers) / len(numbers))}{ends}"


def instruments(rows: Sequence[Row]) -> list[str]:
    """For each sort of concept, what is found with each instrument, and paired against all of them."""
    tested: list[tuple[str, str, Comparison]] = []
    for title, kinds in INSTRUMENTS.items():
        arms = [arm for arm in dict.fromkeys(row.arm for row in rows) if arm != WHOLE and of(rows, arm, *kinds)]
        tested += [(title, arm, one) for arm in arms if (one := compared(rows, arm, WHOLE, kinds)) is not None]
    known = [at for at, (_, _, one) in enumerate(tested) if one.p is not None]
    adjusted = dict(zip(known, holm([float(tested[at][2].p or 0.0) for at in known]), strict=True))
    lines = []
    for title, kinds in INSTRUMENTS.items():
        lines += ["", f"**{title}**", ""]
        body = [[f"`{WHOLE}`", *cells(of(rows, WHOLE, *kinds)), "", "", ""]]
        for at, (said, arm, one) in enumerate(tested):
            if said == title:
                p = adjusted.get(at)
                own = own_difference(of(rows, arm, *kinds), of(rows, WHOLE, *kinds))
                shown = [own, with_interval(one.estimate), "-" if p is None else f"{chance(one.p)}, {chance(p)}"]
                body.append([f"`{arm}`", *cells(of(rows, arm, *kinds)), *shown])
        lines += table(
            ("arm", "solved", "cleared", "own score", "its difference", "right: difference", "p, Holm"), body
        )
    return lines[1:]


def own_difference(rows: Sequence[Row], whole: Sequence[Row]) -> str:
    """The mean paired difference of the kind's own score, or of the Brier loss, with its interval by organism."""
    values = {(row.case, row.epoch): row.scores.get("score", row.brier) for row in whole}
    paired = [(row.scores.get("score", row.brier), values.get((row.case, row.epoch)), row.organism) for row in rows]
    known = [(ours - theirs, name) for ours, theirs, name in paired if ours is not None and theirs is not None]
    if not known:
        return "-"
    found = mean_interval([delta for delta, _ in known], [name for _, name in known], least=-2.0, most=2.0).interval
    ends = "" if found.low is None else f" ({number(found.low)} to {number(found.high)})"
    return number(sum(delta for delta, _ in known) / len(known)) + ends


def cells(rows: Sequence[Row]) -> list[str]:
    """What an arm's row says of itself."""
    return [count(rows, "solved"), count(rows, "cleared"), own_score(rows)]


def calls(rows: Sequence[Row], counts: Sequence[dict[str, int]]) -> list[str]:
    """Calls a run of the white-box script makes, by kind and family of tools."""
    by_kind: dict[str, list[dict[str, int]]] = {}
    for row, called in zip(rows, counts, strict=True):
        if row.arm == WHOLE:
            by_kind.setdefault(row.kind, []).append(called)
    names = sorted({name for runs in by_kind.values() for called in runs for name in called})
    lines = [
        [
            kind,
            *(f"{mean:.1f}" if (mean := sum(one.get(name, 0) for one in runs) / len(runs)) else "" for name in names),
        ]
        for kind, runs in by_kind.items()
    ]
    return table(("kind", *names), lines)


def blocks(values: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Every generated part of the page, by its mark."""
    read = [row_from(one) for one in values]
    rows, counts = [row for row, _ in read], [called for _, called in read]
    parts = {"overall": overall(rows), "kinds": by_kind(rows), "instruments": instruments(rows)}
    return {**parts, "calls": calls(rows, counts)}


def filled(page: str, parts: dict[str, list[str]]) -> str:
    """The page with its generated parts.

    Raises:
        ValueError: the page lacks a mark.
    """
    for name, lines in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"{PAGE} has no part between <!-- {name} --> and <!-- /{name} -->")
        page = pattern.sub(lambda found, lines=lines: found[1] + "\n".join(lines) + "\n" + found[2], page)  # type: ignore[misc]
    return page


def stored() -> list[dict[str, str]]:
    """The rows of nano.csv."""
    with ROWS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keep(folder: Path) -> None:
    """Write nano.csv from a played evaluation."""
    rows = sorted(
        (kept(row, folder) for row in rows_in(folder)), key=lambda one: (one["case"], one["epoch"], one["arm"])
    )
    with ROWS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the evaluation")
    parser.add_argument("--from-csv", action="store_true", help="tables from docs/results/nano.csv, nothing is played")
    options = parser.parse_args()
    if options.from_csv == (options.out is not None):
        parser.error("give either --out FOLDER or --from-csv")
    if options.out is not None:
        command = [str(Path(sys.executable).with_name("marple")), "evaluate", str(SUITE), "--out", str(options.out)]
        subprocess.run(command, check=True)
        keep(options.out)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), blocks(stored())), encoding="utf-8")


if __name__ == "__main__":
    main()
