"""Row 7: a linear probe, its strength chosen among five by five-fold cross-validation, fitted on all rows."""

from __future__ import annotations

import statistics
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.models import Model, Work
from benchmarks.peers import module
from benchmarks.plan import Plan
from benchmarks.rounds import Variant, interleave
from benchmarks.table import Row, Target, row
from marple.tools.probes.linear import fit_probe

__all__ = ["probe_rows"]

STRENGTHS = 5
FOLDS = 5
OPERATION = "probe, 5-fold cross-validation over 5 strengths"


@dataclass(frozen=True)
class Samples:
    """Correlated features with noisy labels, and as many unseen ones."""

    train: Tensor
    labels: NDArray[np.bool_]
    test: Tensor
    answers: NDArray[np.bool_]


def probe_rows(plan: Plan) -> list[Row]:
    """Ours (ridge in closed form, strength by cross-validated AUROC) beside scikit-learn's logistic regression."""
    library = module("sklearn.linear_model") if plan.peers else None
    if library is None:
        return [Row(OPERATION, "x", floor_is="scikit-learn (not asked)", target=0.12)]
    prepare = partial(_samples, plan.model, plan.work)
    gap = check_accuracy([prepare(number) for number in range(3)])
    variants = {
        "scikit-learn": Variant(lambda it: sklearn_accuracy(it)),
        "ours": Variant(lambda it: accuracy(it)),
        "ours, logistic": Variant(lambda it: accuracy(it, method="logistic")),
    }
    timings = interleave(variants, rounds=plan.rounds, prepare=prepare)
    rows, width = plan.work.probe_samples, plan.work.probe_width
    return [
        row(
            f"{OPERATION}, {rows} x {width}",
            timings,
            Target(0.12),
            floor="scikit-learn",
            floor_is="scikit-learn LogisticRegressionCV",
            clock="cpu",
            peers=("ours, logistic",),
            checked=f"accuracy on unseen rows minus scikit-learn's: {gap:+.2f} points",
        )
    ]


def check_accuracy(several: list[Samples]) -> float:
    """Mean gain over scikit-learn in points; more than half a point less is an error."""
    gap = 100 * statistics.fmean(accuracy(it) - sklearn_accuracy(it) for it in several)
    if gap < -0.5:
        raise AssertionError(f"the probe is {-gap:.2f} points less accurate than scikit-learn's")
    return gap


def accuracy(samples: Samples, *, method: Any = "ridge") -> float:
    probe = fit_probe(samples.train, samples.labels, method=method)
    return float(((probe.scores(samples.test) > 0) == samples.answers).mean())


def sklearn_accuracy(samples: Samples) -> float:
    linear, scaling = module("sklearn.linear_model"), module("sklearn.preprocessing")
    assert linear is not None
    assert scaling is not None
    scaler = scaling.StandardScaler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = linear.LogisticRegressionCV(Cs=STRENGTHS, cv=FOLDS, max_iter=1000)
        model.fit(scaler.fit_transform(samples.train.numpy()), samples.labels)
        return float((model.predict(scaler.transform(samples.test.numpy())) == samples.answers).mean())


def _samples(model: Model, work: Work, number: int) -> Samples:
    count, width = work.probe_samples, work.probe_width
    mixing = torch.randn(width, width, generator=model.generator) / width**0.5
    direction = torch.randn(width, generator=model.generator)
    features = torch.randn(2 * count, width, generator=model.generator) @ mixing
    signal = features @ direction
    chance = torch.sigmoid(2.5 * signal / signal.std())
    labels = (torch.rand(2 * count, generator=model.generator) < chance).numpy()
    return Samples(features[:count], labels[:count], features[count:], labels[count:])
