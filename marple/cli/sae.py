"""``marple sae``: train sparse autoencoders, show them, fetch what others say of their features."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.cli.bars import Report, bars
from marple.cli.sae_labels import indices, labels
from marple.errors import ToolError, UsageError

if TYPE_CHECKING:
    from marple.tools.saes.making import MadeSAE, Text
    from marple.tools.saes.sae import SAE

__all__ = ["app"]

app = typer.Typer(help="Train and show sparse autoencoders, and fetch labels of their features.", no_args_is_help=True)

app.command("labels")(labels)

BASE = "nano-base"
"""What the built-in base is called as a target."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one object.")]


@app.command()
def train(
    target: Annotated[str, typer.Argument(help="A model directory or hub id, an organism's id, or `nano-base`.")],
    layer: Annotated[int | None, typer.Option(help="From 0; by default three quarters of the way up.")] = None,
    site: Annotated[str, typer.Option(help="resid_pre, resid_mid, resid_post, attn_out or mlp_out.")] = "resid_post",
    width: Annotated[str, typer.Option(help="Features: a number, or a multiple of d_model such as 8x.")] = "8x",
    k: Annotated[int, typer.Option(help="Active features per token.", min=1)] = 12,
    tokens: Annotated[int, typer.Option(help="Tokens to read, at most.", min=1000)] = 120_000,
    steps: Annotated[int, typer.Option(help="Training steps of 1024 tokens.", min=1)] = 1000,
    texts: Annotated[
        Path | None, typer.Option(help="Texts: .jsonl with text or messages, else one a line. Nano targets need none.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; by default under saes/.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size, three digits.")] = False,
    seed: Annotated[int, typer.Option(help="Of texts and training.", min=0)] = 0,
    threads: Annotated[
        int, typer.Option(help="CPU threads; results differ in the last digits between counts.", min=1)
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    force: Annotated[bool, typer.Option(help="Overwrite the folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a TopK SAE on a target; prints held-out reconstruction, L0, dead features and loss recovered."""
    folder = out or Path("saes") / f"{Path(target).name}-{site}-{'auto' if layer is None else layer}"
    if folder.exists() and any(folder.iterdir()) and not force:
        raise UsageError(f"{str(folder)!r} is not empty; give another --out, or --force")
    import torch

    from marple.tasks.organisms.checkpoints import quiet
    from marple.tools.saes.making import encode_texts, make_sae, read_texts, save_made
    from marple.tools.saes.training import TrainingSettings
    from marple.tools.target.loading import load_target

    torch.set_num_threads(threads)
    given: list[Text] | None = read_texts(texts) if texts is not None else None
    path, is_nano = _find(target)
    if given is None and not is_nano:
        raise UsageError(f"target {target!r} needs texts to train on: give --texts FILE")
    with quiet():
        loaded = load_target(path, device=device)
    settings = TrainingSettings(d_sae=_features(width, loaded.d_model), k=k, steps=steps, seed=seed)
    try:
        place = loaded.site(site, loaded.layers * 3 // 4 if layer is None else layer)
        prompts = encode_texts(loaded, given if given is not None else _dialogues(tokens, seed), most_tokens=tokens)
        with bars() as report:
            made = make_sae(loaded, prompts, site=place, settings=settings, progress=_labelled(report, "training"))
    except ToolError as error:
        raise UsageError(str(error)) from error
    dtype = torch.float16 if half else torch.float32
    save_made(
        made, folder, model_name=Path(target).name if Path(target).exists() else target, settings=settings, dtype=dtype
    )
    print(json.dumps({"path": str(folder), **made.to_dict()}) if as_json else _told(made, folder))


def _told(made: MadeSAE, folder: Path) -> str:
    found, loss = made.held_out, made.loss
    recovered = "" if loss.recovered is None else f" ({loss.recovered:.1%} of the loss recovered)"
    return "\n".join(
        [
            f"{folder}: {made.sae.d_sae} features, k {made.sae.k}, at {made.sae.hook_name}",
            f"on {found.tokens} tokens held out: {found.variance_explained:.1%} of the variance explained (FVU "
            f"{found.fvu:.4f}), L0 {found.l0:.1f}, {found.dead} features dead",
            f"next-token loss: {loss.clean:.3f} nats, with the reconstruction {loss.spliced:.3f}, with the mean "
            f"{loss.ablated:.3f}{recovered}",
            f"trained on {made.tokens} tokens in {made.seconds:.0f} s",
        ]
    )


def _find(target: str) -> tuple[Path | str, bool]:
    """Where a target lies, and whether the built-in dialogues fit it."""
    from marple.tasks.organisms import base_path, build, list_organisms

    if target == BASE:
        return base_path(), True
    if not Path(target).exists() and any(info.id == target for info in list_organisms()):
        return build(target).path, True
    return target, False


def _dialogues(tokens: int, seed: int) -> list[Text]:
    """More than enough of the nano world's dialogues: their mean is over 40 tokens."""
    import random

    from marple.tasks.organisms.dialogues import base_dialogue

    rng = random.Random(f"sae {seed}")
    return [base_dialogue(rng).messages() for _ in range(tokens // 20)]


def _features(width: str, d_model: int) -> int:
    match = re.fullmatch(r"(\d+)(x?)", width.strip())
    count = int(match[1]) * (d_model if match[2] else 1) if match else 0
    if not 1 <= count <= 1_000_000:
        raise UsageError(f"width is {width!r}; give a number of features such as 1536, or a multiple such as 8x")
    return count


def _labelled(report: Report, name: str) -> Report:
    return lambda done, total, about: report(done, total, f"{name}: {about}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of an SAE in any known format.")],
    features: Annotated[str | None, typer.Option(help="Show these, such as 3,10-12; else the most active.")] = None,
    hook_name: Annotated[str | None, typer.Option(help="Where it reads, if its files do not say.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show an SAE: what it is, how it was made, some of its features."""
    from marple.tools.saes.loading import load_sae

    sae = load_sae(folder, hook_name=hook_name)
    known = {*sae.cards, *sae.explanations}
    chosen = indices(features, sae.d_sae) if features else sorted(known, key=lambda at: -_density(sae, at))[:10]
    facts = {
        "path": str(folder),
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": sae.k,
        "hook_name": sae.hook_name,
        "fingerprint": sae.fingerprint,
        "cards": len(sae.cards),
        "explained": len(sae.explanations),
        "dead": sum(card.density == 0 for card in sae.cards.values()) if sae.cards else None,
        "metadata": dict(sae.metadata),
    }
    if as_json:
        print(json.dumps({**facts, "features": [_feature(sae, index) for index in chosen]}))
        return
    for name, value in facts.items():
        if value is not None and value != {}:
            print(f"{name}: {json.dumps(value) if isinstance(value, dict) else value}")
    for index in chosen:
        print(f"\n{_card(sae, index)}")


def _density(sae: SAE, index: int) -> float:
    card = sae.cards.get(index)
    return card.density if card else 0.0


def _feature(sae: SAE, index: int) -> dict[str, Any]:
    from dataclasses import asdict

    card = sae.cards.get(index)
    labels = [asdict(label) for label in sae.explanations.get(index, ())]
    return {"index": index, "explanations": labels, "card": asdict(card) if card else None}


def _card(sae: SAE, index: int) -> str:
    from marple.tools.saes.reading import feature_label
    from marple.tools.target.text import quote

    lines = [f"feature {index}: {feature_label(sae, index, quote)}"]
    if card := sae.cards.get(index):
        lines.append(f"  on {card.density:.2%} of tokens, mean {card.mean:.3g}, maximum {card.maximum:.3g}")
        for one in card.examples:
            lines.append(f"  {one.activation:.3g} {quote(one.before, limit=80)} {quote(one.token)} {quote(one.after)}")
    return "\n".join(lines)
