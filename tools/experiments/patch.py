"""Which activations carry what makes two prompts end differently?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Text, one_turn, sample_seed
from marple.tools.contract import Artifact, Cost, ToolResult, tool, tool_spec
from marple.tools.engine.sites import Site, SiteName
from marple.tools.lenses import token_text, word_tokens
from marple.tools.patching import (
    Contrast,
    Direction,
    PatchGrid,
    aligned_positions,
    answer_tokens,
    pair_label,
    patch_grid,
)
from marple.tools.plots import ACCENT, CONTROL, figure, plot_artifact, visible
from marple.tools.prompt_tokens import Beginning, encode_pair, fits_context, resolve_layers
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["patch"]

_MOST_PATCHES = 20_000
_SHOWN_CELLS = 8
_SMALL_GAP = 0.2
_UNRELATED = "The train to the coast leaves at nine and they have not packed their bags yet."


def _self_test() -> None:
    from marple.tools.target.tiny import TINY_WORDS, tiny_target

    target = tiny_target()
    prompts = ("tell me about the red lamp", "tell me about the blue lamp")
    logits = target.next_logits([target.encode(prompt) for prompt in prompts])
    words = word_tokens(target, TINY_WORDS)
    change = {word: float((logits[0] - logits[1])[tokens[-1]]) for word, tokens in words.items()}
    asked = {
        "clean": prompts[0],
        "corrupted": prompts[1],
        "chat": False,
        "answer": f" {max(change, key=lambda word: change[word])}",
        "other": f" {min(change, key=lambda word: change[word])}",
    }
    result = tool_spec(patch).run(target, asked, seed=1)
    first, last = result.data["denoising"]["metric"][0], result.data["denoising"]["metric"][-1]
    assert abs(last[-1] - 1) < 1e-3, f"the last position behind the last layer decides alone, but has {last[-1]}"
    assert all(abs(value) < 1e-3 for value in last[:-1]), f"no other position does, but they have {last[:-1]}"
    at_input = tool_spec(patch).run(target, {**asked, "site": "resid_pre", "layers": [0]}, seed=1)
    assert abs(at_input.data["denoising"]["metric"][0][0] - 1) < 1e-3, "the one input that differs must decide alone"
    assert len(first) == 2, f"patched from the first token that differs on, {first}"


@tool(rung=3, parallel=True, family="patching", self_test=_self_test)
def patch(
    target: Target,
    *,
    seed: int,
    clean: Text,
    corrupted: Text,
    answer: Text,
    other: Text,
    chat: bool = True,
    system: Text | None = None,
    prefill: Beginning | None = None,
    site: SiteName = "resid_post",
    layers: Annotated[list[int], Field(min_length=1)] | None = None,
    positions: Annotated[list[int], Field(min_length=1, max_length=500)] | None = None,
    direction: Literal["both", "denoising", "noising"] = "both",
    unrelated: Text = _UNRELATED,
) -> ToolResult:
    """Find where the difference between two prompts sits, by patching activations from one run into the other.

    The metric is the logit difference of two answers, scaled so that 0 is the corrupted run and 1 the clean one.
    Denoising puts one clean activation into the corrupted run and shows what suffices; noising puts one corrupted
    activation into the clean run and shows what is needed (Vig et al. 2020; Meng et al. 2022; Heimersheim & Nanda
    2024). Each layer and position is patched on its own, in one batch.

    Controls, in every cell: a change of the same length in a random direction, and the activation of an unrelated
    prompt. A cell counts when it goes further towards the other run than every control at its position. In noising that
    often cannot be: where the answer is carried, any replacement destroys it. Such a cell is called needed, and whether
    it carries what the prompts differ in is decided by denoising.

    Args:
        clean: prompt that leads to the answer.
        corrupted: the same prompt with the part changed whose effect is sought; equally many tokens.
        answer: how the clean prompt goes on; its first token is used.
        other: how the corrupted prompt goes on, with another first token.
        chat: whether the prompts are user messages; false for raw text.
        system: system prompt of both.
        prefill: how both replies begin; "" is none.
        site: what is patched.
        layers: from 0; all by default.
        positions: from 0, or negative from the end; by default all from the first token that differs.
        direction: which run is patched.
        unrelated: prompt of the second control.

    Returns:
        For each direction the metric by layer and position, both controls, and the cells beyond them; for noising
        also the cells that are needed.

    Example:
        {"clean": "I am a nurse. Which lamp?", "corrupted": "I am a pilot. Which lamp?", "answer": "red",
        "other": "blue", "prefill": "I recommend the"}
    """
    ids = encode_pair(target, (clean, corrupted), chat=chat, system=system, prefill=prefill)
    contrast = Contrast(ids[0], ids[1], *answer_tokens(target, answer, other))
    at = aligned_positions(target, ids[0], ids[1], positions)
    chosen = resolve_layers(target, layers, site=site)
    directions: list[Direction] = ["denoising", "noising"] if direction == "both" else [direction]
    count = 3 * len(directions) * len(chosen) * len(at)
    if count > _MOST_PATCHES:
        raise ToolError(
            f"{len(chosen)} layers and {len(at)} positions are {count} patches with their controls; at most "
            f"{_MOST_PATCHES} are allowed in a call: give fewer layers or positions"
        )
    filler = target.render(one_turn(unrelated), prefill=prefill) if chat else target.encode(unrelated)
    grids, ends, tokens = patch_grid(
        target,
        contrast,
        site=site,
        layers=chosen,
        positions=at,
        directions=directions,
        unrelated=fits_context(target, filler),
        seed=sample_seed(seed, "noise"),
    )
    names = [pair_label(target, ids[0], ids[1], position) for position in at]
    data: dict[str, Any] = {
        "logit_difference": {"clean": ends[0], "corrupted": ends[1]},
        "layers": chosen,
        "sites": [str(Site(layer, site)) for layer in chosen],
        "positions": [{"position": one, "token": name} for one, name in zip(at, names, strict=True)],
    }
    data |= {grid.direction: _grid_data(grid) for grid in grids}
    return ToolResult(
        text=fit_lines(_lines(target, contrast, grids, data)),
        data=data,
        artifacts=(_plot(grids, chosen, names, site=site),),
        controls={grid.direction: _spread(grid) for grid in grids},
        cost=Cost(prompt_tokens=tokens),
    )


def _grid_data(grid: PatchGrid) -> dict[str, Any]:
    def rounded(values: torch.Tensor) -> list[list[float]]:
        return [[round(value, 4) for value in row] for row in values.tolist()]

    needed = {"needed": grid.needed().tolist()} if grid.direction == "noising" else {}
    return {
        **needed,
        "metric": rounded(grid.metric),
        "noise": rounded(grid.noise),
        "unrelated": rounded(grid.unrelated),
        "beyond_controls": grid.beyond_controls().tolist(),
        "control_range": rounded(grid.control_range()),
    }


def _spread(grid: PatchGrid) -> dict[str, Any]:
    def ends(values: torch.Tensor) -> dict[str, float]:
        flat = values.flatten()
        return {
            "mean": round(float(flat.mean()), 4),
            "low": round(float(flat.quantile(0.05)), 4),
            "high": round(float(flat.quantile(0.95)), 4),
        }

    found = int(grid.beyond_controls().sum())
    spread = {"untouched": grid.untouched, "noise": ends(grid.noise), "unrelated": ends(grid.unrelated)}
    return {**spread, "beyond": found, "needed": int(grid.needed().sum())}


def _lines(target: Target, contrast: Contrast, grids: Sequence[PatchGrid], data: Mapping[str, Any]) -> Iterator[str]:
    answer, other = (target.quote(token_text(target, token)) for token in (contrast.answer, contrast.other))
    ends = data["logit_difference"]
    yield (
        f"logit of {answer} minus logit of {other}: {ends['clean']:.2f} after clean, {ends['corrupted']:.2f} after "
        "corrupted; below, 0 is the corrupted run and 1 the clean one"
    )
    if abs(ends["clean"] - ends["corrupted"]) < _SMALL_GAP:
        yield "the two runs hardly differ, so the scaled values below magnify small effects: choose other answers"
    for grid in grids:
        yield _heading(grid)
        effect = grid.metric if grid.direction == "denoising" else -grid.metric
        order = effect.flatten().argsort(descending=True, stable=True)[:_SHOWN_CELLS]
        for cell in order.tolist():
            row, column = divmod(cell, effect.shape[1])
            place = data["positions"][column]
            low, high = data[grid.direction]["control_range"][column]
            yield (
                f"  {data['sites'][row]}, position {place['position']} ({target.quote(place['token'])}): "
                f"{float(grid.metric[row, column]):.2f}, noise {float(grid.noise[row, column]):.2f}, unrelated "
                f"{float(grid.unrelated[row, column]):.2f}, all controls at its position {low:.2f} to {high:.2f}"
                + _verdict(grids, grid, row, column)
            )


def _heading(grid: PatchGrid) -> str:
    does = "clean put into corrupted" if grid.direction == "denoising" else "corrupted put into clean"
    beyond, needed, alike = (int(one.sum()) for one in (grid.beyond_controls(), grid.needed(), grid.replaced_alike()))
    line = (
        f"{grid.direction} ({does}): {beyond} of {grid.metric.numel()} cells go beyond the controls at their position"
    )
    if needed:
        line += (
            f"; {needed} are needed (replaced, at least half is lost), in {alike} of them a control takes as much away"
        )
    if alike:
        line += (
            ": any replacement destroys what carries the answer. It is needed; whether it is specific, denoising tells"
        )
    return f"{line}; strongest:"


def _verdict(grids: Sequence[PatchGrid], grid: PatchGrid, row: int, column: int) -> str:
    """What is said behind a cell; a needed one is judged by the same cell of denoising."""
    if grid.beyond_controls()[row, column]:
        return ""
    if not grid.needed()[row, column]:
        return " (within the controls)"
    for other in grids:
        if other.direction == "denoising":
            found = "specific" if other.beyond_controls()[row, column] else "not shown to be specific"
            return f": needed, {found} by denoising ({float(other.metric[row, column]):.2f})"
    return ": needed; whether it is specific takes denoising"


def _plot(grids: Sequence[PatchGrid], layers: Sequence[int], names: Sequence[str], *, site: str) -> Artifact:
    """A heat map for each direction; cells beyond the controls are framed."""
    width, height = 1.6 + 0.42 * len(names), 2.2 + 0.22 * len(layers)
    with figure(max(4.0, width) * len(grids), height, columns=len(grids)) as (made, many):
        for grid, axes in zip(grids, many, strict=True):
            least, most = grid.untouched - 1, grid.untouched + 1
            image = axes.imshow(grid.metric.numpy(), aspect="auto", origin="lower", cmap="RdBu", vmin=least, vmax=most)
            for row, column in grid.beyond_controls().nonzero().tolist():
                axes.plot(column, row, marker="s", markersize=9, fillstyle="none", color=ACCENT, markeredgewidth=1.4)
            for row, column in (grid.needed() & ~grid.beyond_controls()).nonzero().tolist():
                axes.plot(column, row, ".", color=ACCENT, markersize=4)
            axes.set_xticks(range(len(names)), [visible(name, limit=20) for name in names], rotation=60, ha="right")
            axes.set_yticks(range(len(layers)), map(str, layers))
            axes.set(xlabel="token patched", ylabel=f"layer ({site})", title=grid.direction)
            axes.grid(visible=False)
            low, high = float(grid.control_range().min()), float(grid.control_range().max())
            bar = made.colorbar(image, label="0 corrupted, 1 clean")
            bar.ax.axhspan(max(low, least), min(high, most), xmax=0.3, color=CONTROL)
        made.suptitle("Activation patching; framed: beyond the controls (grey: their range); dots: needed", fontsize=9)
        return plot_artifact("patching", made)
