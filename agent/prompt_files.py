"""The prompts in ``agent/prompts``: Markdown with a name and a version in front."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

import yaml

__all__ = ["PromptFile", "load_prompt", "prompt_versions"]


@dataclass(frozen=True)
class PromptFile:
    """One prompt."""

    name: str
    version: int
    text: str
    """Without its front matter."""

    @property
    def sha256(self) -> str:
        """Of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@functools.cache
def load_prompt(name: str) -> PromptFile:
    """The prompt in ``agent/prompts/<name>.md``."""
    text = resources.files("marple.agent").joinpath(f"prompts/{name}.md").read_text(encoding="utf-8")
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    said = yaml.safe_load(front)
    return PromptFile(said["name"], said["version"], body.strip())


def prompt_versions() -> dict[str, dict[str, object]]:
    """Every prompt by its name, with ``version`` and ``sha256``, for ``run.json``."""
    folder = resources.files("marple.agent").joinpath("prompts")
    names = sorted(file.name.removesuffix(".md") for file in folder.iterdir() if file.name.endswith(".md"))
    return {name: {"version": load_prompt(name).version, "sha256": load_prompt(name).sha256} for name in names}
