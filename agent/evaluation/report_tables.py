"""The results as CSV: one line a number, and one line a sample."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from marple.tools.visible import visible

__all__ = ["NUMBER_COLUMNS", "results_csv", "samples_csv"]

NUMBER_COLUMNS = (
    *("table", "arm", "against", "kind", "measure", "value", "low", "high", "n", "n_total", "worst", "best"),
    *("organisms", "method", "df", "p", "p_holm", "why"),
)
_SPENT = ("turns", "calls", "tokens", "target_tokens", "seconds")


def results_csv(results: Mapping[str, Any]) -> str:
    """Every number of the headline, of the kinds and of the comparisons, with its interval, at full precision."""
    return _written(NUMBER_COLUMNS, _numbers(results))


def samples_csv(results: Mapping[str, Any]) -> str:
    """Every sample, whether or not it was scored."""
    samples = results["samples"]
    return _written(list(samples[0]) if samples else ["key"], samples)


def _numbers(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for table in ("headline", "kinds"):
        for row in results[table]:
            named = {"table": table, "arm": row["arm"], "kind": row.get("kind", "")}
            yield from ({**named, "measure": name, **one} for name, one in row["measures"].items())
            spent = row["costs"]
            yield from ({**named, "measure": name, "value": spent[name], "n": spent["begun"]} for name in _SPENT)
            known = spent["begun"] - spent["cost_unknown"]
            total = None if spent["begun"] and not known else spent["cost_usd"]
            yield {**named, "measure": "cost_usd", "value": total, "n": known, "n_total": spent["begun"]}
    for row in results["comparisons"]:
        named = {"table": row["family"], "arm": row["arm"], "against": row["against"]}
        yield {**named, "measure": row["measure"], **row["difference"], "p": row["p"], "p_holm": row["p_holm"]}
        yield from ({**named, "measure": name, **row[name]} for name in ("brier", "forecast_skill"))


def _written(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Text as it can be opened in a spreadsheet: nothing that one would run as a formula, no control characters."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown
