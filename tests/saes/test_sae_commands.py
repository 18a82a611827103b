"""``marple sae`` on small models, and the SAE that comes with the package."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from marple.cli import app
from marple.errors import UsageError
from marple.tasks.organisms import base_path
from marple.tasks.organisms.places import SHIPPED
from marple.tools.saes.evaluation import reconstruction
from marple.tools.saes.loading import load_sae
from marple.tools.target.loading import load_target
from marple.tools.target.tiny import make_tiny_checkpoint

SHIPPED_SAE = SHIPPED / "saes" / "nano-base-resid_post-3"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["sae", *map(str, arguments)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    colours, things = ("red", "green", "blue", "old", "new"), ("lamp", "chair", "table", "cup", "river", "stone")
    rows: list[dict[str, Any]] = [
        {"text": f"tell me about the {a} {b} and the {c} {d}"}
        for a in colours
        for b in things
        for c in colours[:3]
        for d in things
    ]
    rows += [
        {"messages": [{"role": "user", "content": f"see {a} {b}"}, {"role": "assistant", "content": "yes"}]}
        for a in colours
        for b in things
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_train_writes_an_sae_with_cards_and_says_how_good_it_is(model: Path, texts: Path, tmp_path: Path) -> None:
    arguments = ["--texts", texts, "--width", "2x", "--k", 4, "--steps", 150, "--layer", 0]
    done = run("train", model, *arguments, "--out", tmp_path / "a", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    sae = load_sae(tmp_path / "a")
    assert (sae.d_sae, sae.k, sae.hook_name, len(sae.cards)) == (64, 4, "blocks.0.hook_resid_post", 64)
    assert told["held_out"]["fvu"] < 0.5
    assert told["held_out"]["l0"] <= 4
    assert sae.metadata["measured"]["held_out"]["fvu"] == told["held_out"]["fvu"]
    assert str(model.parent) not in (tmp_path / "a" / "cfg.json").read_text()

    again = run("train", model, *arguments, "--out", tmp_path / "b")
    assert "of the variance explained" in again.stdout
    assert load_sae(tmp_path / "b").fingerprint == sae.fingerprint
    assert (tmp_path / "a" / "cards.jsonl").read_bytes() == (tmp_path / "b" / "cards.jsonl").read_bytes()

    shown = run("show", tmp_path / "a", "--features", "0,2-3")
    assert shown.exit_code == 0
    assert "d_sae: 64" in shown.stdout
    assert "feature 3: " in shown.stdout
    as_json = json.loads(run("show", tmp_path / "a", "--features", "5", "--json").stdout)
    assert as_json["features"][0]["card"]["index"] == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--width", "wide"], "width is 'wide'"),
        (["--layer", "7"], "layer"),
        (["--site", "nowhere"], "nowhere"),
        (["--k", "100"], "k is 100"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    model: Path, texts: Path, tmp_path: Path, changed: list[str], message: str
) -> None:
    done = run("train", model, "--texts", texts, "--out", tmp_path / "x", "--steps", 5, *changed)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert not (tmp_path / "x").exists()


def test_texts_that_cannot_be_read_are_refused(model: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "t.jsonl", tmp_path / "out"
    for content, message in (
        ("", "is empty"),
        ("{", "line 1 is not JSON"),
        ('{"other": 1}', 'neither "text" nor "messages"'),
        ('{"text": "red lamp"}', "too few"),
        ('{"messages": [{"role": "nobody", "content": "x"}]}', "chat template refuses"),
    ):
        path.write_text(content)
        done = run("train", model, "--texts", path, "--out", out)
        assert isinstance(done.exception, UsageError), done.output
        assert message in str(done.exception)
    done = run("train", model, "--out", out)
    assert "give --texts FILE" in str(done.exception)
    out.mkdir()
    (out / "kept").write_text("")
    done = run("train", model, "--out", out)
    assert "is not empty" in str(done.exception)


def test_show_refuses_what_is_no_sae_and_features_it_has_not(tmp_path: Path) -> None:
    assert "no SAE in a known format" in str(run("show", tmp_path).exception)
    assert "feature 1536 does not exist" in str(run("show", SHIPPED_SAE, "--features", "1536").exception)


def test_the_shipped_sae_explains_the_base_as_its_file_says() -> None:
    import random

    from marple.tasks.organisms.dialogues import base_dialogue
    from marple.tools.saes.activations import collect_activations
    from marple.tools.saes.making import encode_texts

    sae, base = load_sae(SHIPPED_SAE), load_target(base_path())
    rng = random.Random("dialogues that it has not seen")
    prompts = encode_texts(base, [base_dialogue(rng).messages() for _ in range(60)], most_tokens=3000)
    found = reconstruction(sae, collect_activations(base, prompts, sae.check_fits(base)).values)
    assert found.fvu == pytest.approx(sae.metadata["measured"]["held_out"]["fvu"], abs=0.03)
    assert found.fvu < 0.1
    assert found.l0 <= 12
    assert len(sae.cards) == sae.d_sae == 1536
    size = sum(path.stat().st_size for path in SHIPPED_SAE.iterdir())
    assert size < 2_200_000
    assert torch.isfinite(sae.weights.W_dec).all()
