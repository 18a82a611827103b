"""One pass of new tokens of many rows through the model: edits made and activations read on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from marple.tools.engine.architecture import Architecture
from marple.tools.engine.edits import EditTable, RowWindow, SiteEdits
from marple.tools.engine.sites import Site
from marple.tools.engine.slots import Slots

__all__ = ["Pass", "Runner", "Tap"]


@dataclass(frozen=True, eq=False)
class Tap:
    """Activations to read at one site: the tokens of all rows in one gather."""

    site: Site
    before_edits: bool
    rows: tuple[int, ...]
    """For each token wanted, its row in the pass ..."""
    columns: tuple[int, ...]
    """... and its place in the row."""
    is_whole: bool = False
    """Every token of every row, so that nothing need be gathered."""

    def read(self, hidden: Tensor) -> Tensor:
        """``(token, d_model)`` out of ``(row, width, d_model)``."""
        if self.is_whole:
            return hidden.detach().reshape(-1, hidden.shape[-1])
        device = hidden.device
        return hidden.detach()[torch.tensor(self.rows, device=device), torch.tensor(self.columns, device=device)]


@dataclass
class Pass:
    """What a pass has to do and what it read."""

    windows: Sequence[RowWindow]
    slots: Slots | None = None
    """Where keys and values are; None where every row begins and nothing is kept."""
    taps: Sequence[Tap] = ()
    stop_after: int | None = None
    """Boundary of the residual stream behind which nothing is needed; None runs all layers and the final norm."""
    table: EditTable | None = None
    ends_only: bool = False
    """Whether only the final hidden state of each row's last token is wanted; those of the others then mean nothing."""
    read: dict[Tap, Tensor] = field(default_factory=dict)


class _Enough(Exception):
    """Ends a pass early; nothing behind this layer is needed."""


class Runner:
    """Runs passes: hooks on the layers are registered once and do what the pass under way asks for."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.device = torch.device(architecture.model.device)
        self.dtype: torch.dtype = architecture.model.dtype
        self._hooked: set[object] = set()
        self._pass: Pass | None = None
        self._edits: dict[Site, SiteEdits] = {}
        self._taps: dict[Site, list[Tap]] = {}
        self._inputs: dict[int, Tensor] = {}
        self._ends: tuple[Tensor, Tensor] | None = None

    def run(self, work: Pass) -> Tensor | None:
        """Run a pass; returns final hidden states ``(row, width, d_model)``, normed, or None when stopped early."""
        table = work.table or EditTable(self.device)
        self._edits = table.plan(work.windows)
        for tap in work.taps:
            self._taps.setdefault(tap.site.place, []).append(tap)
        for site in {*self._edits, *self._taps}:
            self._hook(site)
        if work.stop_after is not None:
            self._hook_boundary(work.stop_after)
        if work.ends_only:
            self._ends = self._narrow(work)
        self._pass = work
        try:
            return self._forward(work)
        except _Enough:
            return None
        finally:
            self._pass, self._edits, self._taps = None, {}, {}
            self._inputs.clear()
            self._ends = None

    def _forward(self, work: Pass) -> Tensor:
        width = max(len(window.tokens) for window in work.windows)
        ids = torch.tensor(
            [[*window.tokens, *_padding(window.tokens) * (width - len(window.tokens))] for window in work.windows],
            device=self.device,
        )
        given: dict[str, Any] = {}
        if work.slots is None:
            given = {"use_cache": False}
        else:
            work.slots.open([window.start for window in work.windows], [len(window.tokens) for window in work.windows])
            given = {"use_cache": True, "past_key_values": work.slots, "position_ids": work.slots.position_ids}
            if not work.slots.needs_no_mask(self.architecture.windows):
                given["attention_mask"] = self._masks(work.slots)
        hidden: Tensor = self.architecture.decoder(input_ids=ids, **given).last_hidden_state
        return hidden

    def _masks(self, slots: Slots) -> Any:
        windows = {window for window in self.architecture.windows if window is not None}
        full = slots.mask(self.dtype, None)
        return self.architecture.masks(full, {window: slots.mask(self.dtype, window) for window in windows})

    # ------------------------------------------------------------------------------- hooks

    def _hook(self, site: Site) -> None:
        boundary = site.boundary
        if boundary is not None:
            self._hook_boundary(boundary)
        elif site.name == "mlp_out":
            self._hook_output(self.architecture.mlp[site.layer], site)
        else:
            self._hook_attention(site.layer)

    def _hook_boundary(self, boundary: int) -> None:
        if ("boundary", boundary) in self._hooked:
            return
        self._hooked.add(("boundary", boundary))
        site = Site(boundary, "resid_pre")

        def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
            return self._at_boundary(site, output)

        def before(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
            changed = self._at_boundary(site, arguments[0])
            return None if changed is None else (changed, *arguments[1:])

        if boundary:
            self.architecture.layers[boundary - 1].register_forward_hook(after)
        else:
            self.architecture.layers[0].register_forward_pre_hook(before, prepend=True)

    def _at_boundary(self, site: Site, output: Any) -> Any:
        if self._pass is None:
            return None
        changed = self._edit(site, output)
        if self._pass.stop_after == site.layer:
            raise _Enough
        return changed

    def _narrow(self, work: Pass) -> tuple[Tensor, Tensor] | None:
        """Rows and columns of the last tokens, if the last layer's MLP need compute nothing else.

        That must not depend on edits: one that changes nothing is to change no bit.
        """
        top = len(self.architecture.layers)
        read = {Site(top, "resid_pre"), Site(top - 1, "mlp_out")}
        mlp = getattr(self.architecture.layers[-1], "mlp", None)
        if mlp is None or max(len(window.tokens) for window in work.windows) == 1 or read & {*self._taps}:
            return None
        self._hook_last_mlp(mlp)
        ends = [len(window.tokens) - 1 for window in work.windows]
        return torch.arange(len(ends), device=self.device), torch.tensor(ends, device=self.device)

    def _hook_last_mlp(self, mlp: nn.Module) -> None:
        if mlp in self._hooked:
            return
        self._hooked.add(mlp)
        widths: list[int] = []

        def before(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
            if self._ends is None:
                return None
            widths.append(arguments[0].shape[1])
            return (arguments[0][self._ends].unsqueeze(1), *arguments[1:])

        def after(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Any:
            if self._ends is None:
                return None
            whole = output.new_zeros(len(output), widths.pop(), output.shape[-1])
            whole[self._ends] = output[:, 0]
            return whole

        # Before the hooks that read and edit what the MLP gives out.
        mlp.register_forward_pre_hook(before)
        mlp.register_forward_hook(after, prepend=True)

    def _hook_output(self, module: nn.Module, site: Site) -> None:
        if site in self._hooked:
            return
        self._hooked.add(site)

        def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
            return None if self._pass is None else self._edit(site, output)

        module.register_forward_hook(after)

    def _hook_attention(self, layer: int) -> None:
        """``attn_out``, and ``resid_mid``, which is the layer's input plus that."""
        if ("attention", layer) in self._hooked:
            return
        self._hooked.add(("attention", layer))
        out, mid = Site(layer, "attn_out"), Site(layer, "resid_mid")

        def before_layer(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if self._pass is not None:
                self._inputs[layer] = arguments[0]

        def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
            if self._pass is None:
                return None
            changed = self._edit(out, output)
            if mid not in self._edits and mid not in self._taps:
                return changed
            added = _first(output if changed is None else changed)
            stream = self._inputs[layer] + added
            edited = self._edit(mid, stream)
            # The stream itself is out of reach here; what attention adds to it is not.
            return changed if edited is None else _with_first(output, added + (edited - stream))

        self.architecture.layers[layer].register_forward_pre_hook(before_layer)
        self.architecture.attention[layer].register_forward_hook(after)

    def _edit(self, site: Site, output: Any) -> Any:
        """Read and edit what a module gave out; None where it stays as it is."""
        assert self._pass is not None
        hidden = _first(output)
        taps = self._taps.get(site, ())
        for tap in taps:
            if tap.before_edits:
                self._pass.read[tap] = tap.read(hidden)
        edits = self._edits.get(site)
        edited = hidden if edits is None else edits.apply(hidden)
        for tap in taps:
            if not tap.before_edits:
                self._pass.read[tap] = tap.read(edited)
        return None if edits is None else _with_first(output, edited)


def _padding(tokens: tuple[int, ...]) -> tuple[int, ...]:
    # Any token will do: nothing attends to what stands on the right of a row. Some families warn of their pad token.
    return tokens[-1:] or (0,)


def _first(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _with_first(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
