import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from marple.errors import ToolError
from marple.tools.probes.folds import make_folds
from marple.tools.probes.linear import cross_validate, fit_probe
from marple.tools.probes.solvers import METHODS, STRENGTHS, Method

SHAPES = [(200, 30), (40, 90), (60, 60)]


def correlated(rows: int, width: int, *, seed: int = 0, noise: float = 1.0) -> tuple[NDArray, NDArray]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, width)) @ generator.normal(size=(width, width)) / np.sqrt(width) + 3
    signal = (features - 3) @ generator.normal(size=width)
    labels = signal / signal.std() + generator.normal(size=rows) * noise > 0.3
    return features, labels


def standardized(features: NDArray) -> NDArray:
    return (features - features.mean(axis=0)) / features.std(axis=0)


def axes(rows: int, width: int) -> int:
    """Over how many axes a penalty's unit averages: features, or what fewer rows span about their mean."""
    return width if rows >= width else rows - 1


def oracle(method: Method, strength: float, features: NDArray) -> object:
    """scikit-learn's classifier with the same penalty, for standardized features."""
    rows, width = features.shape
    penalty = strength * rows * width / axes(rows, width)
    if method == "ridge":
        return Ridge(alpha=penalty)
    if method == "lda":
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=strength)
    return LogisticRegression(C=4 / penalty, tol=1e-10, max_iter=10_000)


def decide(model: object, features: NDArray) -> NDArray:
    told = getattr(model, "decision_function", None) or model.predict  # type: ignore[attr-defined]
    return np.asarray(told(features))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["ridge", "lda", "logistic"])
def test_fits_equal_scikit_learn(method: Method, shape: tuple[int, int]) -> None:
    features, labels = correlated(*shape)
    scaled = standardized(features)
    model = oracle(method, 0.3, scaled)
    model.fit(scaled, np.where(labels, 1.0, -1.0) if method == "ridge" else labels)  # type: ignore[attr-defined]
    expected = decide(model, scaled)
    found = fit_probe(torch.from_numpy(features), labels, method=method, strength=0.3).scores(
        torch.from_numpy(features)
    )
    assert found == pytest.approx(expected, abs=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["ridge", "lda"])
def test_held_out_scores_equal_those_of_models_fitted_without_the_fold(method: Method, shape: tuple[int, int]) -> None:
    features, labels = correlated(*shape)
    fold = make_folds(labels)
    found = cross_validate(torch.from_numpy(features), labels, method=method, fold=fold, strengths=[0.3])
    scaled = standardized(features)
    for at in range(5):
        rest, held = fold != at, fold == at
        model = oracle(method, 0.3, scaled)
        if method == "ridge":
            # The penalty is in units of the training rows' own mean variance along an axis.
            centred = scaled[rest] - scaled[rest].mean(axis=0)
            model = Ridge(alpha=0.3 * (centred**2).sum() / axes(*shape))
        model.fit(scaled[rest], np.where(labels[rest], 1.0, -1.0) if method == "ridge" else labels[rest])  # type: ignore[attr-defined]
        expected = decide(model, scaled[held])
        assert found.scores[held] == pytest.approx(expected, abs=1e-3 * np.abs(expected).max())


def test_difference_of_means_is_the_raw_one() -> None:
    features, labels = correlated(80, 12)
    probe = fit_probe(torch.from_numpy(features), labels, method="difference_of_means")
    positive, negative = features[labels].mean(axis=0), features[~labels].mean(axis=0)
    assert probe.weight.numpy() == pytest.approx(positive - negative, abs=1e-5)
    assert probe.bias == pytest.approx(-(positive - negative) @ (positive + negative) / 2, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_many_label_vectors_at_once_equal_each_alone(method: Method) -> None:
    features, labels = correlated(60, 20)
    fold = make_folds(labels)
    generator = np.random.default_rng(1)
    shuffled = np.stack([generator.permutation(labels) for _ in range(4)])
    rows = torch.from_numpy(features)
    together = cross_validate(rows, labels, method=method, fold=fold, shuffled=shuffled)
    for at, other in enumerate(shuffled):
        alone = cross_validate(rows, other, method=method, fold=fold)
        assert together.null[at] == pytest.approx(alone.auroc, abs=5e-3)


def test_accuracy_is_that_of_scikit_learns_logistic_regression() -> None:
    features, labels = correlated(1000, 40, noise=0.6)
    fold = make_folds(labels)
    found = cross_validate(torch.from_numpy(features), labels, fold=fold)
    theirs = []
    for at in range(5):
        rest, held = fold != at, fold == at
        model = make_pipeline(
            StandardScaler(),
            LogisticRegressionCV(
                Cs=5, cv=5, l1_ratios=(0,), use_legacy_attributes=False, scoring="accuracy", max_iter=2000
            ),
        )
        theirs.append(model.fit(features[rest], labels[rest]).score(features[held], labels[held]))
    assert found.accuracy > np.mean(theirs) - 0.005


def test_whitening_beats_plain_means_on_correlated_features() -> None:
    features, labels = correlated(1000, 60, noise=0.3)
    rows = torch.from_numpy(features)
    plain, ridge, lda = (
        cross_validate(rows, labels, method=name).auroc for name in ("difference_of_means", "ridge", "lda")
    )
    assert min(ridge, lda) > plain + 0.02
    assert ridge == pytest.approx(lda, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_constant_and_missing_features_are_no_trouble(method: Method) -> None:
    labels = np.arange(20) % 2 == 0
    features = torch.zeros(20, 40)
    assert cross_validate(features, labels, method=method).auroc == 0.5
    features[:, 3] = torch.from_numpy(labels).float()
    assert cross_validate(features, labels, method=method).auroc == 1.0
    assert np.isfinite(fit_probe(features, labels, method=method).scores(features)).all()


def test_a_probe_scores_activations_as_they_come_however_scaled() -> None:
    features, labels = correlated(100, 10)
    wild = torch.from_numpy(features * np.logspace(-3, 3, 10))
    one = fit_probe(torch.from_numpy(features), labels, strength=STRENGTHS["ridge"][1])
    other = fit_probe(wild, labels, strength=STRENGTHS["ridge"][1])
    assert one.scores(torch.from_numpy(features)) == pytest.approx(other.scores(wild), abs=1e-3)


def test_rows_without_two_classes_or_with_nan_are_refused() -> None:
    features = torch.ones(6, 3)
    with pytest.raises(ToolError, match="all 6 rows have the same label"):
        cross_validate(features, np.ones(6, dtype=bool))
    features[0, 0] = float("nan")
    with pytest.raises(ToolError, match="NaN"):
        fit_probe(features, np.arange(6) < 3)
    with pytest.raises(ToolError, match=r"shape \(6, 3\) for 5 labels"):
        fit_probe(features, np.arange(5) < 3)
