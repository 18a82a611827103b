"""The sentences of a report: what came out in short, what it does and does not show, and how to make it again."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from marple.agent.evaluation.shown import interval, money, of_n, p_value, value

__all__ = ["arms_file", "begun", "command", "failures", "in_short", "reading", "statuses"]

_PLAIN_ARM = ("name", "investigator")


def in_short(results: Mapping[str, Any]) -> list[str]:
    """One sentence an arm, and one for each control that is missing."""
    lines = [_sentence(row, results) for row in results["headline"]]
    missing = [one["investigator"] for one in results["controls"]["missing"]]
    lines += [f"The control arm {name} was not played: nothing here is compared with it." for name in missing]
    lost = results["counts"]["samples"] - results["counts"]["scored"]
    if lost:
        lines.append(
            f"{lost} of {results['counts']['samples']} samples have no score; the tables say what they could change."
        )
    return lines


def _sentence(row: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    measures = row["measures"]
    headline = measures["balanced_accuracy"]
    if headline["value"] is None:
        said = f"no balanced accuracy, because {headline['why']}"
    else:
        bounds = interval("balanced_accuracy", headline) or f"(no interval: {headline['why']})"
        said = f"balanced accuracy {value('balanced_accuracy', headline)} {bounds}"
    found = [f"{of_n(measures[name])} {name}" for name in ("solved", "cleared") if of_n(measures[name])]
    against = [
        _against(one) for one in results["comparisons"] if one["arm"] == row["arm"] and one["family"] == "controls"
    ]
    chosen = next((one.get("cases") for one in results["arms"] if one["name"] == row["arm"]), None)
    name = f"{row['arm']} (plays {', '.join(chosen)} only)" if chosen else row["arm"]
    return f"{name}: {said}; {', '.join(found) or 'nothing scored'}{''.join(against)}; cost {money(row['costs'])}."


def _against(one: Mapping[str, Any]) -> str:
    if one["difference"]["value"] is None:
        return ""
    shown = value(one["measure"], one["difference"], signed=True)
    return f"; against {one['against']} {shown} (adjusted p {p_value(one['p_holm'])})"


def reading(results: Mapping[str, Any]) -> list[str]:
    """What may be concluded, and what may not."""
    counts = results["counts"]
    lines = [
        f"{counts['organisms']} organisms were played. Intervals speak of other organisms made in the same way, not of "
        "other models: that takes organisms of another make.",
        "Balanced accuracy is the mean of the share of organisms solved and the share of clean targets cleared: naming "
        "nothing everywhere has one half, and so has naming the right thing everywhere.",
    ]
    if any("/nano-" in row["case"] for row in results["matrix"]):
        lines.append(
            "Nano organisms prove the pipeline and compare investigators. They are small and narrowly fine-tuned, so "
            "unusually readable: a method that works on them is not proven for a large model."
        )
        lines.append(
            "The scripted investigators were developed while looking at the nano organisms. They are a bar for agents; "
            "their own scores here measure nothing new."
        )
    few = [row["arm"] for row in results["headline"] if 0 < row["measures"]["balanced_accuracy"]["organisms"] < 12]
    if few:
        lines.append(
            "With fewer than 12 organisms intervals are so wide that only large differences show; in simulations of 8 "
            "organisms and 4 clean targets those of shares and their differences still held in 93 to 97 of 100 cases."
        )
    lines.append(
        "Intervals of Brier loss are too narrow where nearly all runs go well: in simulations those "
        "of an arm that is right nine times in ten held in 81 to 91 of 100 cases instead of 95."
    )
    if any(arm.get("cases") for arm in results["arms"]):
        lines.append(
            "Arms that play some cases only are compared with others on those; their own shares stand beside shares of "
            "other cases."
        )
    if counts["unknown"]:
        lines.append(f"{counts['unknown']} cases have no known answer: they are in no score.")
    return lines


def failures(results: Mapping[str, Any]) -> list[str]:
    """Why samples have no score, the most frequent first."""
    lost = Counter(
        (sample["arm"], sample["status"], sample["error"]) for sample in results["samples"] if not sample["scored"]
    )
    ordered = sorted(lost.items(), key=lambda one: (-one[1], one[0]))
    return [f"{n} × {arm}: {status}{f' ({error})' if error else ''}" for (arm, status, error), n in ordered]


def statuses(results: Mapping[str, Any]) -> list[str]:
    """Every status that a sample ended with, the most frequent first."""
    total: Counter[str] = Counter()
    for one in results["outcomes"]:
        total.update(one["by_status"])
    return sorted(total, key=lambda name: (-total[name], name))


def begun(results: Mapping[str, Any]) -> str:
    """When the evaluation was begun, in UTC; empty where it is not known."""
    created = results["evaluation"].get("created")
    return "" if created is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(float(created)))


def command(results: Mapping[str, Any]) -> str:
    """The command that plays the same plan."""
    said = results["evaluation"]
    arms = "arms.yaml" if arms_file(results) else ",".join(one["name"] for one in results["arms"])
    words = ["marple", "evaluate", said.get("suite_file") or said["suite"], "--arms", arms, "--no-controls"]
    words += ["--epochs", str(said.get("epochs", 1))]
    limits = said.get("run_budget") or {}
    if limits:
        words += ["--run-budget", ",".join(f"{name}={'none' if v is None else v}" for name, v in limits.items())]
    return shlex.join([*map(str, words), "--out", "DIR"])


def arms_file(results: Mapping[str, Any]) -> str:
    """The arms as a YAML file; empty where their names say everything."""
    import yaml

    told = [{name: value for name, value in arm.items() if value not in (None, [], {}, "")} for arm in results["arms"]]
    if all(set(arm) <= set(_PLAIN_ARM) and arm["name"] == arm["investigator"] for arm in told):
        return ""
    return str(yaml.safe_dump(told, sort_keys=False, allow_unicode=True)).strip()
