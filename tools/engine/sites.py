"""Places in a transformer where activations are read and edited, and the names other people give them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from marple.errors import ToolError

__all__ = ["SITE_NAMES", "Site", "SiteName", "parse_site"]

SiteName = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
SITE_NAMES: tuple[SiteName, ...] = get_args(SiteName)

_HOOKS: dict[str, SiteName] = {
    **{f"hook_{name}": name for name in SITE_NAMES},
    # What TransformerLens calls a block's input and output since its version 3.
    "hook_in": "resid_pre",
    "hook_out": "resid_post",
}
_SETS: dict[str, SiteName] = {"res": "resid_post", "att": "attn_out", "mlp": "mlp_out"}
_MODULES: dict[str, SiteName] = {
    "": "resid_post",
    "self_attn": "attn_out",
    "attn": "attn_out",
    "attention": "attn_out",
    "post_attention_layernorm": "attn_out",
    "mlp": "mlp_out",
    "post_feedforward_layernorm": "mlp_out",
}
_PLAIN = re.compile(r"^(\w+)\.(\d+)$|^(\d+)\.(\w+)$")
_LENS = re.compile(r"^blocks\.(\d+)\.(hook_\w+)$")
_MODULE = re.compile(r"^(?:[a-z_]+\.)*(?:layers|h)\.(\d+)(?:\.(\w+))?\.(input|output)$")
_SOURCE = re.compile(r"^(\d+)-([\w.-]+)$")


@dataclass(frozen=True, order=True)
class Site:
    """A place in the residual stream or beside it: ``str(site)`` is TransformerLens' name for it.

    ``resid_pre`` is a layer's input, ``resid_mid`` the stream between attention and MLP, ``resid_post`` the layer's
    output (not normed, in the last layer either); ``attn_out`` and ``mlp_out`` are what the two parts add to it, behind
    the norm that some families put there.
    """

    layer: int
    name: SiteName

    def __str__(self) -> str:
        return f"blocks.{self.layer}.hook_{self.name}"

    @property
    def boundary(self) -> int | None:
        """Where the residual stream is cut: 0 before the first layer, k behind layer k - 1; None beside the stream."""
        if self.name == "resid_post":
            return self.layer + 1
        return self.layer if self.name == "resid_pre" else None

    @property
    def place(self) -> Site:
        """One name for each place: the stream behind a layer is the next layer's input."""
        return Site(self.layer + 1, "resid_pre") if self.name == "resid_post" else self

    @property
    def depth(self) -> int:
        """How many layers must have begun before it is known: 0 for the input of the first."""
        return self.layer + (self.name != "resid_pre")


def parse_site(text: str) -> Site:
    """A site from any of its names.

    Args:
        text: ``resid_post.4``; TransformerLens' ``blocks.4.hook_resid_post``; a module path of transformers
            with ``.output`` such as ``model.layers.4.output`` or ``model.layers.4.mlp.output``; or a Neuronpedia source
            such as ``4-gemmascope-2-res-16k``.

    Raises:
        ToolError: it is none of these.
    """
    found = _plain(text) or _lens(text) or _module(text) or _source(text)
    if found is None:
        raise ToolError(
            f'site "{text[:80]}" is not known; give one of {", ".join(SITE_NAMES)} with a layer, such as '
            '"resid_post.2", "blocks.2.hook_resid_post" or "model.layers.2.output"'
        )
    return found


def _plain(text: str) -> Site | None:
    match = _PLAIN.match(text)
    if match is None:
        return None
    name, layer = (match[1], match[2]) if match[1] and not match[1].isdigit() else (match[4], match[3])
    return next((Site(int(layer), known) for known in SITE_NAMES if known == name), None)


def _lens(text: str) -> Site | None:
    match = _LENS.match(text)
    return Site(int(match[1]), _HOOKS[match[2]]) if match and match[2] in _HOOKS else None


def _module(text: str) -> Site | None:
    match = _MODULE.match(text)
    if match is None:
        return None
    layer, module, side = int(match[1]), match[2] or "", match[3]
    if side == "input":
        return Site(layer, "resid_pre") if not module else None
    return Site(layer, _MODULES[module]) if module in _MODULES else None


def _source(text: str) -> Site | None:
    match = _SOURCE.match(text)
    if match is None:
        return None
    words = re.split(r"[-_.]", match[2].lower())
    names = {_SETS[word[:3]] for word in words if word[:3] in _SETS and word not in ("resource", "attribution")}
    return Site(int(match[1]), names.pop()) if len(names) == 1 else None
