"""What a worker serves: a target out of a staged directory, what was staged beside it, and the tools it can run."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.errors import TargetRefusedError, ToolError, UsageError
from marple.tools import messages
from marple.tools.calls import Call, check_cancelled, current_call, during, report_progress
from marple.tools.contract import ToolResult, ToolSpec, unmet_needs
from marple.tools.digests import digests
from marple.tools.faults import UnknownTool, describe_fault

if TYPE_CHECKING:
    from marple.tools.saes.sae import SAE
    from marple.tools.target.target import Target

__all__ = ["Served", "load"]


@dataclass(frozen=True)
class Served:
    """A loaded target and the tools that it can be given to."""

    target: Target
    tools: Mapping[str, ToolSpec]
    """Those that have what they need."""
    known: Mapping[str, ToolSpec]
    """All there are; their self-tests bring what they need."""

    def describe(self) -> dict[str, Any]:
        """The reply to ``hello``."""
        return {
            "protocol": messages.PROTOCOL,
            "tools": [_info(spec) for spec in self.tools.values()],
            "target": {**self.target.facts, "saes": _sae_facts(self.target), "corpus": self.target.corpus is not None},
            "reference": self.target.reference is not None,
            "digests": digests(self.target, loaded=self.target.facts["weights_sha256"]),
            "stamp": _stamp(),
        }

    def call(self, request: messages.Call) -> dict[str, Any]:
        """Run one tool and put the notes of the call under its text.

        Raises:
            UnknownTool: there is no such tool.
            CallCancelled: the host has cancelled the call under way.
        """
        spec = self.tools.get(request.tool)
        if spec is None:
            raise UnknownTool(f"there is no tool {request.tool[:100]!r}; there are {', '.join(self.tools)}")
        check_cancelled()
        result = spec.run(self.target, request.arguments, seed=request.seed)
        check_cancelled()
        return messages.result_to_json(_with_notes(result))

    def digest(self) -> dict[str, Any]:
        """The digests of the weights as they are in memory now; waits for the batch under way."""
        return digests(self.target)

    def self_test(self) -> dict[str, Any]:
        """The outcome of every tool's known-answer test.

        Raises:
            CallCancelled: the host has cancelled the request.
        """
        outcomes = []
        for done, spec in enumerate(self.known.values()):
            report_progress(done, len(self.known), "self-tests")
            outcomes.append(_self_test(spec))
        return {"outcomes": outcomes}


def _with_notes(result: ToolResult) -> ToolResult:
    call = current_call()
    if call is None or not call.notes:
        return result
    return dataclasses.replace(result, text="\n".join([result.text, *call.notes]))


def _self_test(spec: ToolSpec) -> dict[str, Any]:
    if spec.self_test is None:
        return {"name": spec.name, "ok": False, "message": "has no self-test"}
    try:
        # A call of its own: what the test's experiments report is not the progress of the self-tests.
        with during(Call()):
            spec.self_test()
    except Exception as error:
        return {"name": spec.name, "ok": False, "message": describe_fault(error)[1]}
    return {"name": spec.name, "ok": True, "message": ""}


# ---------------------------------------------------------------------------------------------- loading


def load(root: Path, config: messages.WorkerConfig) -> Served:
    """Load what the configuration names; every path in it is relative to ``root``.

    Raises:
        TargetRefusedError: the target or what lies beside it cannot be loaded, or does not fit together.
    """
    _prepare_environment(root, config.threads)
    # Importing torch and transformers allocates millions of long-lived objects; collecting in between
    # takes a fifth of the start.
    gc.disable()
    try:
        import torch

        if config.threads is not None:
            torch.set_num_threads(config.threads)
        from marple.tools.contract import discover_tools

        target = _load_target(root, config)
        target.saes = _load_saes(root, config.saes, target)
        target.corpus = None if config.corpus is None else root / config.corpus
        tools = discover_tools([root / plugin for plugin in config.plugins])
    finally:
        gc.enable()
        gc.freeze()
    offered = {name: spec for name, spec in tools.items() if not unmet_needs(spec.needs, target)}
    return Served(target, offered, tools)


def _load_target(root: Path, config: messages.WorkerConfig) -> Target:
    from marple.tools.target.loading import load_target

    device = _device(config.device)
    if config.adapter is not None:
        base = root / config.target
        return load_target(root / config.adapter, base=base, share_base=True, device=device, dtype=config.dtype)
    reference = None if config.reference is None else root / config.reference
    return load_target(root / config.target, reference=reference, device=device, dtype=config.dtype)


def _load_saes(root: Path, folders: Sequence[str], target: Target) -> dict[str, SAE]:
    """The SAEs by name: the site each reads, with a number behind it where several read the same."""
    from marple.tools.saes.loading import load_sae

    saes: dict[str, SAE] = {}
    for folder in folders:
        try:
            sae = load_sae(root / folder, device=target.device)
            site = str(sae.check_fits(target))
        except (UsageError, ToolError) as error:
            # The path is of no use to a person; the place in the list is.
            reason = str(error).replace(f"{root}/", "")
            raise TargetRefusedError(f"{Path(folder).parts[1]}: {reason}") from error
        name = next(name for name in _names(site) if name not in saes)
        saes[name] = sae
    return saes


def _names(site: str) -> Iterator[str]:
    yield site
    yield from (f"{site}.{number}" for number in itertools.count(2))


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _prepare_environment(root: Path, threads: int | None) -> None:
    # The process starts without any variable; these keep libraries from the network and from the home directory.
    nowhere = str(root / "none")
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TRANSFORMERS_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
        TOKENIZERS_PARALLELISM="false",
        HF_HOME=nowhere,
        TORCH_HOME=nowhere,
        MPLCONFIGDIR=str(root / "cache"),
    )
    if threads is not None:
        os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))


# ---------------------------------------------------------------------------------------------- what is said of it


def _info(spec: ToolSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "rung": spec.rung,
        "parallel": spec.parallel,
        "needs": list(spec.needs),
        "parameters": dict(spec.parameters),
    }


def _sae_facts(target: Target) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "site": str(sae.site),
            "architecture": sae.architecture,
            "d_in": sae.d_in,
            "d_sae": sae.d_sae,
            "fingerprint": sae.fingerprint,
        }
        for name, sae in target.saes.items()
    ]


def _stamp() -> dict[str, Any]:
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
