"""Many rows' edits at one site as a few tensor operations, whatever the number of different vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site

__all__ = ["EditTable", "RowWindow", "SiteEdits"]


@dataclass(frozen=True)
class RowWindow:
    """The tokens of one row in one pass."""

    edits: tuple[Intervention, ...]
    prompt_length: int
    start: int
    """Absolute position of the first token."""
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class _Stage:
    """The ``n``-th edit of each row at a site: ``h := keep * h + mask * (alpha + beta |h| + gamma (h . u)) u``."""

    vectors: Tensor
    """``(row, 1 or width, d_model)``: the vector for add and replace, the unit vector otherwise."""
    alpha: Tensor
    """``(row, 1, 1)`` like the next ones."""
    beta: Tensor | None
    gamma: Tensor | None
    replaces: Tensor | None

    def apply(self, hidden: Tensor, mask: Tensor) -> Tensor:
        if self.beta is None and self.gamma is None and self.replaces is None:
            return hidden + (mask * self.alpha * self.vectors).to(hidden.dtype)
        wide = hidden.float()
        amount = self.alpha.expand(-1, hidden.shape[1], 1)
        if self.beta is not None:
            amount = amount + self.beta * wide.norm(dim=-1, keepdim=True)
        if self.gamma is not None:
            amount = amount + self.gamma * (wide * self.vectors).sum(dim=-1, keepdim=True)
        change = (mask * amount * self.vectors).to(hidden.dtype)
        if self.replaces is None:
            return hidden + change
        return torch.where((self.replaces * mask).bool(), change, hidden + change)


class SiteEdits:
    """The edits of all rows of a pass at one site, in the order of each row's own list."""

    def __init__(self, stages: Sequence[_Stage], masks: Sequence[Tensor | None]) -> None:
        self._work = [(stage, mask) for stage, mask in zip(stages, masks, strict=True) if mask is not None]

    def apply(self, hidden: Tensor) -> Tensor:
        """Edit ``(row, width, d_model)``; rows without an edit come out as they went in."""
        for stage, mask in self._work:
            hidden = stage.apply(hidden, mask)
        return hidden


class EditTable:
    """Builds the edits of passes over the same rows; what does not change between decoding steps is kept."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: tuple[tuple[Intervention, ...], ...] = ()
        self._stages: dict[Site, list[list[Intervention | None]]] = {}
        self._built: dict[Site, list[_Stage]] = {}
        self._last: tuple[object, dict[Site, SiteEdits]] = (None, {})

    def plan(self, windows: Sequence[RowWindow]) -> dict[Site, SiteEdits]:
        """The edits of a pass, by place; places at which nothing is edited now are left out."""
        rows = tuple(window.edits for window in windows)
        if not any(rows):
            return {}
        if len(rows) != len(self._rows) or any(a is not b for a, b in zip(rows, self._rows, strict=True)):
            self._rows, self._built, self._last = rows, {}, (None, {})
            self._stages = _stages_by_site(rows)
        width = max(len(window.tokens) for window in windows)
        masks = {
            site: [
                tuple(_mask(edit, window, width) for edit, window in zip(stage, windows, strict=True)) for stage in at
            ]
            for site, at in self._stages.items()
        }
        key = (width, tuple(masks.items()) if width > 1 else tuple((site, tuple(at)) for site, at in masks.items()))
        if width == 1 and key == self._last[0]:
            return self._last[1]
        planned = {site: self._site(site, at, windows, width) for site, at in masks.items() if _any(at)}
        self._last = (key if width == 1 else None, planned)
        return planned

    def _site(
        self, site: Site, masks: Sequence[Sequence[tuple[bool, ...]]], windows: Sequence[RowWindow], width: int
    ) -> SiteEdits:
        stages = self._stages[site]
        per_position = any(edit is not None and edit.vector.ndim == 2 for stage in stages for edit in stage)
        if per_position:
            built = [_build(stage, windows, width, self._device) for stage in stages]
        else:
            if site not in self._built:
                self._built[site] = [_build(stage, windows, 1, self._device) for stage in stages]
            built = self._built[site]
        tensors = [
            torch.tensor(mask, dtype=torch.float32, device=self._device).unsqueeze(-1) if any(map(any, mask)) else None
            for mask in masks
        ]
        return SiteEdits(built, tensors)


def _stages_by_site(rows: Sequence[tuple[Intervention, ...]]) -> dict[Site, list[list[Intervention | None]]]:
    by_site: dict[Site, list[list[Intervention | None]]] = {}
    for row, edits in enumerate(rows):
        seen: dict[Site, int] = {}
        for edit in edits:
            place = edit.site.place
            stages = by_site.setdefault(place, [])
            at = seen.get(place, 0)
            seen[place] = at + 1
            if at == len(stages):
                stages.append([None] * len(rows))
            stages[at][row] = edit
    return by_site


def _mask(edit: Intervention | None, window: RowWindow, width: int) -> tuple[bool, ...]:
    if edit is None:
        return (False,) * width
    if edit.is_everywhere and edit.generation_window is None:
        in_prompt = min(len(window.tokens), max(0, window.prompt_length - window.start))
        rest = len(window.tokens) - in_prompt
        inside = (edit.edits_prompt,) * in_prompt + (edit.edits_generation,) * rest
        return inside + (False,) * (width - len(inside))
    marks = [edit.applies(window.start + at, token, window.prompt_length) for at, token in enumerate(window.tokens)]
    return tuple(marks) + (False,) * (width - len(marks))


def _any(masks: Sequence[Sequence[tuple[bool, ...]]]) -> bool:
    return any(any(row) for mask in masks for row in mask)


def _build(
    stage: Sequence[Intervention | None], windows: Sequence[RowWindow], width: int, device: torch.device
) -> _Stage:
    d_model = next(edit.vector.shape[-1] for edit in stage if edit is not None)
    vectors = torch.zeros(len(stage), width, d_model)
    coefficients = torch.zeros(4, len(stage), 1, 1)
    for row, (edit, window) in enumerate(zip(stage, windows, strict=True)):
        if edit is None:
            continue
        vectors[row] = _vector(edit, window, width)
        coefficients[:, row, 0, 0] = torch.tensor(_coefficients(edit))
    alpha, beta, gamma, replaces = (one.to(device) for one in coefficients)
    return _Stage(
        vectors=vectors.to(device),
        alpha=alpha,
        beta=beta if bool(beta.any()) else None,
        gamma=gamma if bool(gamma.any()) else None,
        replaces=replaces if bool(replaces.any()) else None,
    )


def _vector(edit: Intervention, window: RowWindow, width: int) -> Tensor:
    vector = edit.vector.detach().to("cpu", torch.float32)
    if edit.op in ("norm_add", "ablate", "clamp"):
        # In double precision no finite vector is too long or too short; a zero vector has no direction.
        long = vector.double()
        vector = (long / long.norm(dim=-1, keepdim=True).clamp(min=1e-300)).float()
    if vector.ndim == 1:
        return vector
    laid = torch.zeros(width, vector.shape[-1])
    for row, position in enumerate(edit.positions or ()):
        at = (position if position >= 0 else position + window.prompt_length) - window.start
        if 0 <= at < width:
            laid[at] = vector[row]
    return laid


def _coefficients(edit: Intervention) -> tuple[float, float, float, float]:
    """``alpha``, ``beta``, ``gamma`` and whether the old value is dropped."""
    if edit.op == "norm_add":
        return (0.0, edit.scale, 0.0, 0.0)
    if edit.op == "ablate":
        return (0.0, 0.0, -edit.scale, 0.0)
    if edit.op == "clamp":
        # Without a direction there is nothing to clamp.
        return (edit.scale, 0.0, -1.0, 0.0) if bool(edit.vector.any()) else (0.0, 0.0, 0.0, 0.0)
    return (edit.scale, 0.0, 0.0, float(edit.op == "replace"))
