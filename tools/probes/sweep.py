"""Probes at many layers from one capture pass, beside their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marple.tools.calls import report_progress
from marple.tools.engine.sites import Site
from marple.tools.probes.auroc import Auroc, measure_auroc
from marple.tools.probes.baselines import Vocabulary, length_features, single_word_scores
from marple.tools.probes.claims import Baseline, Claim, compare_baseline, judge_probe
from marple.tools.probes.folds import make_folds, shuffled_labels
from marple.tools.probes.linear import CrossValidation, Probe, cross_validate, fit_probe
from marple.tools.probes.solvers import Method

__all__ = ["LayerProbe", "Rows", "Sweep", "sweep_layers"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled texts with their activations."""

    features: Mapping[Site, Tensor]
    """``(row, d_model)`` at each site."""
    labels: NDArray[np.bool_]
    texts: Sequence[str]
    lengths: Sequence[int]
    """In tokens."""
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class LayerProbe:
    """A probe at one site."""

    site: Site
    cross_validation: CrossValidation
    auroc: Auroc
    difference_of_means: float
    """Cross-validated AUROC of the plain difference of means."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """All layers, and the judgement on the best."""

    layers: tuple[LayerProbe, ...]
    best: LayerProbe
    probe: Probe
    """Fitted on all rows at the best site."""
    null: NDArray[np.float64]
    """``(shuffle,)``: the best AUROC over the layers with shuffled labels."""
    p_value: float
    """Share of shuffles that reach the best AUROC, itself counted among them."""
    baselines: Mapping[str, Baseline]
    best_word: str
    wide: bool
    """Whether features outnumber the rows that a fold trains on."""
    ood: Auroc | None
    ood_words: Auroc | None
    """The bag of words on the same set from elsewhere."""
    claim: Claim


def sweep_layers(
    rows: Rows,
    *,
    method: Method = "ridge",
    folds: int = 5,
    shuffles: int = 200,
    seed: int = 0,
    ood: Rows | None = None,
) -> Sweep:
    """Probe every site, choose the best, and judge it.

    Args:
        rows: the texts.
        method: the classifier.
        folds: of the cross-validation.
        shuffles: label permutations.
        seed: of folds and permutations.
        ood: a set from elsewhere, never fitted on.

    Raises:
        ToolError: there are too few rows for the folds, or activations are not finite.
    """
    labels, groups = rows.labels, rows.groups
    fold = make_folds(labels, groups=groups, folds=folds, seed=seed)
    shuffled = shuffled_labels(labels, fold, groups=groups, count=shuffles, seed=seed + 1)
    layers = []
    for at, (site, features) in enumerate(rows.features.items()):
        report_progress(at, len(rows.features), "layers")
        layers.append(_probe_layer(site, features, rows, fold, shuffled, method))
    best = max(layers, key=lambda layer: layer.auroc.value)
    null = np.max([layer.cross_validation.null for layer in layers], axis=0)
    width = rows.features[best.site].shape[1]
    wide = width > len(labels) - len(labels) // folds
    baselines, word = _baselines(rows, fold, best, len(layers))
    probe = fit_probe(rows.features[best.site], labels, method=method, strength=best.cross_validation.strength)
    elsewhere = measure_auroc(probe.scores(ood.features[best.site]), ood.labels, groups=ood.groups) if ood else None
    claim = judge_probe(best.auroc, null=null, baselines=baselines, per_class=_units(rows), wide=wide, ood=elsewhere)
    return Sweep(
        layers=tuple(layers),
        best=best,
        probe=probe,
        null=null,
        p_value=float((1 + (null >= best.auroc.value).sum()) / (1 + len(null))),
        baselines=baselines,
        best_word=word,
        wide=wide,
        ood=elsewhere,
        ood_words=_words_elsewhere(rows, ood) if ood else None,
        claim=claim,
    )


def _probe_layer(
    site: Site,
    features: Tensor,
    rows: Rows,
    fold: NDArray[np.int64],
    shuffled: NDArray[np.bool_],
    method: Method,
) -> LayerProbe:
    found = cross_validate(features, rows.labels, method=method, fold=fold, shuffled=shuffled)
    plain = cross_validate(features, rows.labels, method="difference_of_means", fold=fold)
    return LayerProbe(site, found, measure_auroc(found.scores, rows.labels, groups=rows.groups), plain.auroc)


def _baselines(rows: Rows, fold: NDArray[np.int64], best: LayerProbe, layers: int) -> tuple[dict[str, Baseline], str]:
    vocabulary = Vocabulary(rows.texts)
    counts = vocabulary.counts(rows.texts)
    single, word = single_word_scores(counts, rows.labels, fold, vocabulary.words)
    scores = {
        "words": cross_validate(counts, rows.labels, fold=fold).scores,
        "single word": single,
        "length": cross_validate(length_features(rows.lengths), rows.labels, fold=fold).scores,
    }
    probe = best.cross_validation.scores
    compared = {
        name: compare_baseline(probe, values, rows.labels, groups=rows.groups, layers=layers)
        for name, values in scores.items()
    }
    return compared, word


def _words_elsewhere(rows: Rows, ood: Rows) -> Auroc:
    vocabulary = Vocabulary(rows.texts)
    probe = fit_probe(vocabulary.counts(rows.texts), rows.labels)
    return measure_auroc(probe.scores(vocabulary.counts(ood.texts)), ood.labels, groups=ood.groups)


def _units(rows: Rows) -> int:
    """Independent rows, or groups, in the smaller class."""
    if rows.groups is None:
        return int(min(rows.labels.sum(), (~rows.labels).sum()))
    return min(len(np.unique(rows.groups[rows.labels])), len(np.unique(rows.groups[~rows.labels])))
