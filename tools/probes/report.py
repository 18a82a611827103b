"""A layer sweep as text, as data and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from marple.tools.contract import Artifact
from marple.tools.plots import ACCENT, CONTROL, REFERENCE, TARGET, figure, plot_artifact
from marple.tools.probes.sweep import Sweep

__all__ = ["sweep_controls", "sweep_data", "sweep_lines", "sweep_plot"]


def sweep_lines(found: Sweep, *, quote: Callable[[str], str], rows: str) -> Iterator[str]:
    """The verdict, the best layer beside its baselines, then every layer.

    Args:
        found: the sweep.
        quote: makes text safe to show.
        rows: how many rows there are, in words.
    """
    best, fit = found.best, found.best.cross_validation
    yield f"verdict: {found.claim.verdict} ({found.claim.reason})"
    yield (
        f"best layer: {best.site}, {fit.method} AUROC {best.auroc}, accuracy {fit.accuracy:.3f}; difference of means "
        f"{best.difference_of_means:.3f}; cross-validated on {rows}"
    )
    null = np.quantile(found.null, 0.95)
    yield (
        f"shuffled labels (same folds, same search over layers and strengths): median {np.median(found.null):.3f}, "
        f"95 % below {null:.3f}, largest of {len(found.null)} {found.null.max():.3f}; p {found.p_value:.3f}"
    )
    if best.difference_of_means < 0.35 and len(fit.scores) >= 20:
        yield (
            "an AUROC far below 0.5: texts may have near twins on the other side in other folds; give groups, one name "
            "for each pair or template"
        )
    if found.wide:
        yield "features outnumber the rows that a fold trains on, so every one of the shuffles must be exceeded"
    for name, baseline in found.baselines.items():
        word = f" ({quote(found.best_word)})" if name == "single word" and found.best_word else ""
        yield (
            f"{name} baseline{word}: AUROC {baseline.auroc}; the probe is {baseline.advantage:+.3f} "
            f"[{baseline.low:+.3f}, {baseline.high:+.3f}] above it"
        )
    if found.ood is not None:
        yield f"on the set from elsewhere: AUROC {found.ood}, bag of words {found.ood_words}"
    for layer in found.layers:
        yield f"  {layer.site}: {layer.auroc}, difference of means {layer.difference_of_means:.3f}"


def sweep_data(found: Sweep) -> dict[str, Any]:
    """The probes as JSON values."""
    return {
        "verdict": found.claim.verdict,
        "reason": found.claim.reason,
        "site": str(found.best.site),
        **found.best.auroc.to_dict(),
        "accuracy": found.best.cross_validation.accuracy,
        "p_value": found.p_value,
        "features_outnumber_rows": found.wide,
        "ood": None if found.ood is None else found.ood.to_dict(),
        "layers": [
            {
                "site": str(layer.site),
                **layer.cross_validation.to_dict(),
                **layer.auroc.to_dict(),
                "difference_of_means": layer.difference_of_means,
            }
            for layer in found.layers
        ],
    }


def sweep_controls(found: Sweep) -> dict[str, Any]:
    """Shuffled labels and baselines as JSON values."""
    return {
        "shuffled_labels": {
            "shuffles": len(found.null),
            "median": float(np.median(found.null)),
            "quantile_95": float(np.quantile(found.null, 0.95)),
            "largest": float(found.null.max()),
            "p_value": found.p_value,
        },
        "baselines": {name: baseline.to_dict() for name, baseline in found.baselines.items()},
        "best_single_word": found.best_word,
        "ood_words": None if found.ood_words is None else found.ood_words.to_dict(),
    }


def sweep_plot(found: Sweep) -> Artifact:
    """AUROC over layers with its interval, beside difference of means, shuffled labels and baselines."""
    layers = [layer.site.layer for layer in found.layers]
    with figure(7.5, 4.0) as (made, (axes,)):
        low, high = np.quantile(found.null, (0.025, 0.975))
        axes.axhspan(low, high, color=CONTROL, alpha=0.25, linewidth=0, label="shuffled labels, best layer (95 %)")
        styles = {"words": "--", "single word": "-.", "length": ":"}
        for name, baseline in found.baselines.items():
            axes.axhline(
                baseline.auroc.value, color=REFERENCE, linestyle=styles[name], linewidth=1.3, label=f"{name} baseline"
            )
        values = [layer.auroc.value for layer in found.layers]
        axes.fill_between(
            layers,
            [layer.auroc.low for layer in found.layers],
            [layer.auroc.high for layer in found.layers],
            color=TARGET,
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(layers, values, "o-", color=TARGET, label=f"probe ({found.best.cross_validation.method})")
        plain = [layer.difference_of_means for layer in found.layers]
        axes.plot(
            layers, plain, "s-", color=TARGET, alpha=0.45, markersize=3.5, linewidth=1, label="difference of means"
        )
        if found.ood is not None:
            error = [[found.ood.value - found.ood.low], [found.ood.high - found.ood.value]]
            axes.errorbar(
                [found.best.site.layer],
                [found.ood.value],
                error,
                fmt="D",
                color=ACCENT,
                capsize=3,
                label="set from elsewhere",
            )
        axes.set(
            xlabel="layer", ylabel="AUROC", title=found.claim.verdict, ylim=(min(0.3, *values, *plain) - 0.02, 1.02)
        )
        axes.set_xticks(layers if len(layers) <= 20 else layers[:: len(layers) // 12])
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return plot_artifact("probe", made)
