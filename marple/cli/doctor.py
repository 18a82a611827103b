"""``marple doctor``: what works on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from marple.sandboxes import OnProgress

__all__ = ["doctor"]

_PACKAGES = ("torch", "transformers", "peft", "safetensors", "langgraph", "openai", "anthropic")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    id: str
    ok: bool | None
    """None where neither answer is a fault, such as a key that is not set."""
    detail: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
    quick: Annotated[bool, typer.Option(help="Leave out the self-tests, which start a worker.")] = False,
) -> None:
    """Check this machine: packages, device, isolation, keys (present or not), the tools' self-tests."""
    findings = [*_packages(), _device(), *_isolation(), *_keys()]
    if not quick:
        findings += _self_tests()
    if as_json:
        print(json.dumps([vars(finding) for finding in findings]))
    else:
        marks = {True: "ok ", False: "NO ", None: "-  "}
        for finding in findings:
            print(f"{marks[finding.ok]} {finding.id:28} {finding.detail}")
    sys.exit(1 if any(finding.ok is False for finding in findings) else 0)


def _packages() -> list[Finding]:
    wanted = sys.version_info >= (3, 11)
    findings = [Finding("python", wanted, f"{platform.python_version()}, needs 3.11 or newer")]
    for package in _PACKAGES:
        try:
            findings.append(Finding(package, True, version(package)))
        except PackageNotFoundError:
            findings.append(Finding(package, False, "not installed; run: make setup"))
    return findings


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", True, f"cuda: {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return Finding("device", True, "mps")
    return Finding("device", True, f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads")


def _isolation() -> list[Finding]:
    from marple.errors import SandboxUnavailableError
    from marple.sandboxes import backends, choose_backend

    findings = [
        Finding(f"isolation {name}", True if status.available else None, f"{status.reason or 'everything held'}")
        for name, status in backends().items()
    ]
    try:
        chosen = choose_backend()
    except SandboxUnavailableError as error:
        return [*findings, Finding("isolation auto", False, str(error))]
    stamp = chosen.status.stamp
    findings.append(Finding("isolation auto", True, f"{chosen.backend.name}, isolation {stamp.get('isolation')}"))
    findings += [Finding("isolation warning", None, str(warning)) for warning in stamp.get("warnings", ())]
    offered = not chosen.python_refusal
    findings.append(Finding("tool python", True if offered else None, chosen.python_refusal or "offered"))
    return findings


def _keys() -> list[Finding]:
    from marple.agent.models import PROVIDERS

    variables = sorted({provider.key_variable for provider in PROVIDERS.values()})
    return [Finding(name, None, "present" if os.environ.get(name) else "not set") for name in variables]


def _self_tests() -> list[Finding]:
    from marple.errors import MarpleError

    try:
        return asyncio.run(_run_self_tests())
    except MarpleError as error:
        return [Finding("self-tests", False, f"{type(error).__name__}: {error}")]


async def _run_self_tests() -> list[Finding]:
    """The engine's check of itself and the tools' known-answer tests, in a real worker that holds the nano base."""
    from marple.sandboxes import stage, start_worker
    from marple.tasks.organisms import base_path

    with _bar() as on_progress, stage(base_path(), reference=base_path()) as staged:
        async with await start_worker(staged) as worker:
            outcomes = await worker.self_test(on_progress=on_progress)
            checked = worker.facts["self_check"]
    engine = ", ".join(f"{name} {value}" for name, value in checked.items())
    tests = [Finding(f"self-test {o.name}", o.ok, o.message or "known answer found") for o in outcomes]
    return [Finding("engine self-check", True, engine), *tests]


@contextmanager
def _bar() -> Iterator[OnProgress]:
    """A bar on standard error, where it is a terminal: some self-tests train something."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("starting a worker", total=None)
        yield lambda done, total, what: bars.update(task, description=what, completed=done, total=total)
