"""Who may say no before a call is made: nobody, a person at the terminal, or a policy file."""

from __future__ import annotations

import asyncio
import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml

from marple.errors import UsageError
from marple.tools.visible import visible

__all__ = ["Approver", "AskPerson", "Decision", "PolicyFile", "approve_all", "open_approver"]


SHOWN = 600
"""Characters of a call's arguments that a person is shown."""


@dataclass(frozen=True)
class Decision:
    """Whether a call may be made, and why not."""

    allowed: bool
    reason: str = ""


class Approver(Protocol):
    """Decides on one call before it is made."""

    async def __call__(self, tool: str, arguments: Mapping[str, Any]) -> Decision:
        """Decide."""
        ...


async def approve_all(tool: str, arguments: Mapping[str, Any]) -> Decision:
    """Allow every call."""
    return Decision(True)


class AskPerson:
    """Ask at the terminal; an answer other than yes is the reason given to the investigator."""

    async def __call__(self, tool: str, arguments: Mapping[str, Any]) -> Decision:
        """Print the call and wait for a line."""
        said = json.dumps(arguments, ensure_ascii=False)
        shown = said if len(said) <= SHOWN else f"{said[:SHOWN]}... ({len(said):,} characters)"
        question = f"{visible(f'{tool} {shown}')}\nallow? [y / reason to refuse] "
        answer = (await asyncio.to_thread(input, question)).strip()
        return Decision(answer.lower() in ("y", "yes"), answer or "refused")


@dataclass(frozen=True)
class Rule:
    """The first rule whose pattern matches the tool's name decides."""

    tool: str
    decision: Literal["allow", "refuse"]
    reason: str = ""


@dataclass(frozen=True)
class PolicyFile:
    """Rules read from YAML, for example ``- {tool: "complete", decision: refuse, reason: "not here"}``."""

    rules: Sequence[Rule]

    @classmethod
    def read(cls, path: Path) -> PolicyFile:
        """Read a policy.

        Raises:
            UsageError: the file is missing or is not a list of rules.
        """
        try:
            entries = yaml.safe_load(path.read_text(encoding="utf-8"))
            rules = [Rule(**entry) for entry in entries]
        except (OSError, yaml.YAMLError, TypeError) as error:
            raise UsageError(
                f"policy file {str(path)!r} is not a list of rules with tool and decision: {error}"
            ) from error
        for rule in rules:
            if rule.decision not in ("allow", "refuse"):
                raise UsageError(f"policy decision {rule.decision!r} in {str(path)!r}; valid: allow, refuse")
        return cls(rules)

    async def __call__(self, tool: str, arguments: Mapping[str, Any]) -> Decision:
        """Decide by the first matching rule; without one the call is allowed."""
        for rule in self.rules:
            if fnmatch.fnmatch(tool, rule.tool):
                return Decision(rule.decision == "allow", rule.reason or f"the policy refuses {rule.tool}")
        return Decision(True)


def open_approver(policy: str) -> Approver:
    """The approver for ``auto``, ``ask`` or the path of a policy file."""
    if policy == "auto":
        return approve_all
    if policy == "ask":
        return AskPerson()
    return PolicyFile.read(Path(policy))
