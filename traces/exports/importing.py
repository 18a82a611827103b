"""Somebody else's Inspect log as run folders, so that the review app shows it.

Model calls, tool calls and scores keep their places; every other event becomes a note. What Marple alone knows (a
case's truth, claims, replications) is not there, and nothing is made up for it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.errors import CorruptTraceError, UsageError
from marple.traces.run_folder import RunFolder

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

__all__ = ["import_inspect"]

_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_SILENT = ("sample_init", "span_begin", "span_end", "step", "state", "store")
"""Inspect's events that say nothing to a reader of a trace."""


def import_inspect(file: Path, runs: Path) -> list[RunFolder]:
    """Write a run folder for every sample of a log.

    Args:
        file: an ``.eval`` or ``.json`` log.
        runs: the runs folder.

    Returns:
        The folders, in the order of the samples.

    Raises:
        UsageError: Inspect is not installed, there is no such file, or a sample was imported before.
        CorruptTraceError: the file is not an Inspect log.
        StorageError: the folder cannot be written.
    """
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise UsageError("reading an Inspect log needs its package: pip install inspect-ai") from error
    if not file.is_file():
        raise UsageError(f"there is no Inspect log {str(file)!r}")
    try:
        log = read_eval_log(str(file), resolve_attachments=True)
    except Exception as error:
        # Whatever its reader raises means the same here, and it raises many kinds.
        raise CorruptTraceError(f"{file} is not an Inspect log: {type(error).__name__}: {error}") from error
    folders = [_write(log, sample, runs) for sample in log.samples or []]
    if not folders:
        raise CorruptTraceError(f"{file} has no samples")
    return folders


def _write(log: EvalLog, sample: EvalSample, runs: Path) -> RunFolder:
    name = _NOT_A_NAME.sub("-", f"{log.eval.created[:19]}-{log.eval.task}-{sample.id}-{sample.epoch}".replace(":", ""))
    ours = (log.eval.metadata or {}).get("written_by") == "marple"
    case = str(sample.id) if ours else f"{log.eval.task}/{sample.id}"
    spec = {
        "case": case,
        "kind": case.partition("/")[0] if ours else log.eval.task,
        "investigator": log.eval.solver or "inspect",
        "model": log.eval.model,
        "seed": sample.epoch,
        "imported_from": "inspect",
        "versions": dict(log.eval.packages),
        "created": _seconds(sample.started_at or log.eval.created),
    }
    with RunFolder.create(runs, name.strip("-.")[:120], spec) as folder:
        brief = sample.input if isinstance(sample.input, str) else "\n\n".join(m.text for m in sample.input)
        start = {"case": spec["case"], "investigator": spec["investigator"], "model": log.eval.model}
        folder.append("run_start", {**start, "seed": sample.epoch, "nonce": "", "brief": brief, "sandbox": {}})
        _events(folder, sample)
        scores = {key: score.value for key, score in (sample.scores or {}).items()}
        folder.append("score", {"scored": bool(scores), **scores})
        status = "error" if sample.error else "submitted"
        folder.append("run_end", {"status": status})
        folder.write_result(_result(folder, spec, sample, scores, status))
    return RunFolder.open(folder.path)


def _events(folder: RunFolder, sample: EvalSample) -> None:
    turn, index = 0, 0
    for event in sample.events:
        if event.event == "model":
            turn, index = turn + 1, 0
            payload = {"turn_number": turn, "purpose": "investigate", "turn": _turn(event), "attempt": 1}
            role = event.role if event.role in ("target", "judge", "auxiliary") else "investigator"
            folder.append("model_call", payload, role=role, seconds=event.working_time)
        elif event.event == "tool":
            folder.append("tool_call", _call(folder, event, max(turn, 1), index), seconds=event.working_time)
            index += 1
        elif event.event not in _SILENT:
            said = event.model_dump(mode="json", exclude_none=True)
            text = json.dumps(said.get("data", said), ensure_ascii=False)
            folder.append("measurement", {"text": f"{event.event}: {text}", "imported": said})


def _turn(event: Any) -> dict[str, Any]:
    message = event.output.choices[0].message if event.output.choices else None
    usage = event.output.usage
    content = [] if message is None or isinstance(message.content, str) else message.content
    calls = (message.tool_calls or []) if message is not None else []
    counts = {
        "input_tokens": usage.input_tokens if usage else 0,
        "output_tokens": usage.output_tokens if usage else 0,
        "cache_read.input_tokens": (usage.input_tokens_cache_read or 0) if usage else 0,
        "cache_creation.input_tokens": (usage.input_tokens_cache_write or 0) if usage else 0,
        "reasoning.output_tokens": (usage.reasoning_tokens or 0) if usage else 0,
    }
    return {
        "text": message.text if message is not None else "",
        "thinking": [part.reasoning for part in content if part.type == "reasoning"],
        "tool_calls": [
            {
                "id": call.id,
                "name": call.function,
                "arguments": call.arguments,
                "raw": json.dumps(call.arguments),
                "error": call.parse_error,
            }
            for call in calls
        ],
        "stop": "tool_calls" if calls else "end",
        "stop_detail": event.error,
        "native": None,
        "request_id": None,
        "model": event.model,
        "response_model": event.output.model,
        "seconds": event.working_time or 0.0,
        "usage": {
            **{f"gen_ai.usage.{name}": count for name, count in counts.items()},
            "cost_usd": usage.total_cost if usage else None,
            "reported": usage is not None,
        },
    }


def _call(folder: RunFolder, event: Any, turn: int, index: int) -> dict[str, Any]:
    parts = event.result if isinstance(event.result, list) else [event.result]
    texts: list[str] = []
    artifacts: list[Mapping[str, Any]] = []
    for part in parts:
        kind = getattr(part, "type", "text")
        if kind == "image":
            artifacts += _artifact(folder, part.image, len(artifacts))
        else:
            texts.append(str(getattr(part, "text", part)))
    return {
        "turn_number": turn,
        "index": index,
        "call_id": event.id,
        "tool": event.function,
        "attempt": 1,
        "arguments": dict(event.arguments),
        "on_target": False,
        "status": "error" if event.error or event.failed else "ok",
        "text": "\n".join([*texts, *([event.error.message] if event.error else [])]),
        "artifacts": artifacts,
    }


def _artifact(folder: RunFolder, image: str, number: int) -> list[Mapping[str, Any]]:
    """A picture that stands in the log itself; one that lies elsewhere is not fetched."""
    head, _, data = image.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        return []
    media_type = head.removeprefix("data:").removesuffix(";base64")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return []
    name = f"image-{number + 1}.{media_type.partition('/')[2]}"
    return [{"name": name, "media_type": media_type, "ref": folder.put_blob(content, media_type)}]


def _result(
    folder: RunFolder, spec: Mapping[str, Any], sample: EvalSample, scores: Mapping[str, Any], status: str
) -> dict[str, Any]:
    turns = [event for event in folder.events() if event.type == "model_call"]
    costs = [event.payload["turn"]["usage"] for event in turns]
    total: dict[str, Any] = {
        name: sum(cost[name] for cost in costs) for name in (costs[0] if costs else {}) if name.startswith("gen_ai")
    }
    known = all(cost["cost_usd"] is not None for cost in costs)
    total |= {"cost_usd": sum(cost["cost_usd"] for cost in costs) if known else None, "reported": True}
    return {
        "run_id": folder.run_id,
        **{name: spec[name] for name in ("case", "kind", "investigator", "model", "seed")},
        "comparability": 0,
        "status": status,
        "answer": {"summary": sample.output.completion, "claims": []},
        "truth": None,
        "scores": {"scored": bool(scores), **scores},
        "usage": {
            "investigator": total,
            "turns": len(turns),
            "calls": sum(event.type == "tool_call" for event in folder.events()),
            "target_tokens": 0,
            "seconds": sample.total_time or 0.0,
        },
        "measured": {},
        "sandbox": {},
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
