from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from marple.errors import UsageError
from marple.tools.engine.sites import Site
from marple.tools.probes.auroc import Auroc
from marple.tools.probes.claims import Baseline, judge_probe
from marple.tools.probes.keeping import load_probe, save_probe
from marple.tools.probes.linear import fit_probe
from marple.tools.probes.sweep import Rows, sweep_layers

VOCABULARY = [f"w{at}" for at in range(40)]


def rows(kind: str, *, seed: int, count: int, width: int, layers: int = 3) -> Rows:
    """Texts of random words whose activations are a random code of the words, with something added by kind."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 0
    texts = [" ".join(generator.choice(VOCABULARY, size=8)) for _ in labels]
    lengths = [8] * count
    if kind == "words":
        texts = [f"{text} {'yes' if label else 'no'}" for text, label in zip(texts, labels, strict=True)]
    if kind == "length":
        lengths = [int(10 + 3 * label + generator.integers(0, 4)) for label in labels]
    counts = np.array([[text.split().count(word) for word in [*VOCABULARY, "yes", "no"]] for text in texts])
    code = counts @ generator.normal(size=(counts.shape[1], width))
    features = {}
    for layer in range(layers):
        states = code + 2 * generator.normal(size=(count, width))
        if kind == "signal":
            states += np.outer(np.where(labels, 1.0, -1.0), generator.normal(size=width))
        if kind == "length":
            states += 0.5 * np.outer(np.array(lengths) - 12, generator.normal(size=width))
        features[Site(layer, "resid_post")] = torch.from_numpy(states).float()
    return Rows(features, labels, texts, lengths)


def verdicts(kind: str, *, runs: int, count: int, width: int) -> Counter[str]:
    found = (sweep_layers(rows(kind, seed=at, count=count, width=width), seed=at, shuffles=40) for at in range(runs))
    return Counter(one.claim.verdict for one in found)


@pytest.mark.parametrize(("count", "width"), [(24, 64), (80, 24)])
def test_on_noise_a_probe_claims_nothing(count: int, width: int) -> None:
    """Measured over 60 runs each: no claim of being decodable with 24 or 60 rows of 128 features, 1 with 200 of 64."""
    found = verdicts("noise", runs=10, count=count, width=width)
    assert found["decodable beyond baselines"] <= 1
    assert found["no claim"] >= 9


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("words", "explained by words"),
        ("length", "explained by length"),
        ("signal", "decodable beyond baselines"),
    ],
)
def test_what_is_planted_is_named(kind: str, verdict: str) -> None:
    for count, width in ((60, 96), (100, 24)):
        assert verdicts(kind, runs=4, count=count, width=width)[verdict] >= 3


def test_features_that_outnumber_rows_must_exceed_every_shuffle() -> None:
    found = sweep_layers(rows("noise", seed=3, count=24, width=400), shuffles=60)
    assert found.wide
    assert found.null.max() > 0.7, "with 400 features and 24 rows shuffled labels look decodable too"
    assert not sweep_layers(rows("noise", seed=3, count=80, width=24), shuffles=20).wide


def test_the_rule_on_made_up_numbers() -> None:
    null = np.linspace(0.5, 0.7, 201)
    weak = Baseline(Auroc(0.55, 0.45, 0.65), 0.2, 0.1, 0.3)
    given: dict[str, Any] = {"null": null, "baselines": {"words": weak}, "per_class": 20, "ood": None}

    def verdict(value: float, low: float, **other: Any) -> str:
        return judge_probe(Auroc(value, low, 0.9), **{"wide": False, **given, **other}).verdict

    assert verdict(0.695, 0.6) == "decodable beyond baselines"
    assert verdict(0.685, 0.6) == "no claim", "below 95 % of the shuffles"
    assert verdict(0.695, 0.6, wide=True) == "no claim", "below the largest of the shuffles"
    assert verdict(0.71, 0.6, wide=True) == "decodable beyond baselines"
    assert verdict(0.71, 0.49) == "no claim", "the interval reaches chance"
    near = Baseline(Auroc(0.6, 0.45, 0.7), 0.1, -0.05, 0.25)
    assert verdict(0.71, 0.6, baselines={"words": near}) == "no claim", "too few rows to tell them apart"
    telling = Baseline(Auroc(0.65, 0.55, 0.75), 0.06, -0.05, 0.15)
    assert verdict(0.71, 0.6, baselines={"length": telling, "words": near}) == "explained by length"
    assert verdict(0.71, 0.6, baselines={"single word": telling, "length": weak}) == "explained by words"


def test_seven_texts_a_side_are_too_few_for_any_claim() -> None:
    found = sweep_layers(rows("signal", seed=0, count=14, width=8), shuffles=60)
    assert found.claim.verdict == "no claim"
    assert "at least 8" in found.claim.reason


def test_a_set_from_elsewhere_that_fails_limits_the_claim() -> None:
    here = rows("signal", seed=1, count=80, width=24)
    same = Rows(here.features, here.labels, here.texts, here.lengths)
    assert sweep_layers(here, shuffles=40, ood=same).claim.verdict == "decodable beyond baselines"
    elsewhere = rows("signal", seed=2, count=80, width=24)
    found = sweep_layers(here, shuffles=40, ood=elsewhere)
    assert found.ood is not None
    assert found.ood.low < 0.6
    assert found.claim.verdict == "decodable here only"


def test_twins_on_both_sides_need_groups() -> None:
    """Each text has a twin with the other label: across folds the twin misleads, in one fold it does not."""
    generator = np.random.default_rng(0)
    code = 8 * generator.normal(size=(30, 16))
    states = np.concatenate([code, code]) + 0.3 * generator.normal(size=(60, 16))
    labels = np.arange(60) < 30
    site = Site(0, "resid_post")
    given = ({site: torch.from_numpy(states)}, labels, ["a b"] * 60, [2] * 60)
    apart = sweep_layers(Rows(*given), shuffles=40)
    assert apart.best.difference_of_means < 0.3
    together = sweep_layers(Rows(*given, np.tile(np.arange(30), 2)), shuffles=40)
    assert 0.35 < together.best.difference_of_means < 0.65
    assert together.claim.verdict == "no claim"


def test_a_sweep_is_reproducible_by_its_seed() -> None:
    given = rows("noise", seed=0, count=40, width=12)
    first, again, other = (sweep_layers(given, seed=seed, shuffles=30) for seed in (1, 1, 2))
    assert (first.null == again.null).all()
    assert first.best.auroc == again.best.auroc
    assert (first.null != other.null).any()


def test_probes_come_back_from_their_files(tmp_path: Path) -> None:
    given = rows("signal", seed=0, count=40, width=12)
    site = Site(1, "resid_post")
    probe = fit_probe(given.features[site], given.labels, method="lda")
    path = save_probe(tmp_path / "p.safetensors", probe, site=site, metadata={"auroc": 0.9})
    found, where = load_probe(path, width=12)
    assert where == site
    assert torch.equal(found.weight, probe.weight)
    assert (found.method, found.strength) == ("lda", probe.strength)
    assert found.bias == pytest.approx(probe.bias)
    with pytest.raises(UsageError, match="width 12; width 8"):
        load_probe(path, width=8)
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(UsageError, match="holds no probe"):
        load_probe(path)
    path.write_bytes(b"x" * 50)
    with pytest.raises(UsageError, match="no safetensors file"):
        load_probe(path)
