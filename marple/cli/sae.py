"""``marple sae``: train sparse autoencoders, show them, fetch what others say of their features."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.errors import ToolError, UsageError

if TYPE_CHECKING:
    from marple.tools.saes.making import MadeSAE, Text
    from marple.tools.saes.sae import SAE

__all__ = ["app"]

app = typer.Typer(help="Train and show sparse autoencoders, and fetch labels of their features.", no_args_is_help=True)

BASE = "nano-base"
"""What the built-in base is called as a target."""

_Report = Callable[[int, int, str], None]
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
        with _bars() as report:
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


@contextmanager
def _bars() -> Iterator[_Report]:
    """A bar for each thing that reports progress, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from marple.tools.calls import Call, during

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(done: int, total: int, what: str) -> None:
            name = what.partition(":")[0]
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total, description=what)

        with during(Call(on_progress=report)):
            yield report


def _labelled(report: _Report, name: str) -> _Report:
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
    chosen = _indices(features, sae.d_sae) if features else sorted(known, key=lambda at: -_density(sae, at))[:10]
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


@app.command()
def labels(
    source: Annotated[str, typer.Argument(help="Neuronpedia's model and source, gemma-2-2b/20-gemmascope-res-16k.")],
    out: Annotated[Path, typer.Option(help="JSON lines to write; beside an SAE call it explanations.jsonl.")],
    features: Annotated[str | None, typer.Option(help="Which, such as 3,10-12.")] = None,
    search: Annotated[str | None, typer.Option(help="Instead: those whose explanations match.")] = None,
    most: Annotated[int, typer.Option(help="Of a search, at most.", min=1, max=1000)] = 100,
    cache: Annotated[Path | None, typer.Option(help="Folder of answers; by default in the user's cache.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Answer from the cache alone.")] = False,
    url: Annotated[str | None, typer.Option(envvar="NEURONPEDIA_URL", help="Of another server.")] = None,
) -> None:
    """Fetch explanations of features from Neuronpedia; the key, if any, is in NEURONPEDIA_API_KEY."""
    from marple.tasks.organisms.cache import cache_root
    from marple.tools.saes.explanations import write_explanations
    from marple.tools.saes.neuronpedia import DEFAULT_URL, Neuronpedia

    model, slash, layer_set = source.partition("/")
    if not (model and slash and layer_set) or "/" in layer_set:
        raise UsageError(f'source is {source!r}; give model and source, such as "gemma-2-2b/20-gemmascope-res-16k"')
    if (features is None) == (search is None):
        raise UsageError("give either --features or --search, such as --features 3,10-12")
    kept = cache or cache_root().parent / "neuronpedia"
    with Neuronpedia(cache=kept, offline=offline, base_url=(url or DEFAULT_URL).rstrip("/")) as service:
        if search is not None:
            found = _searched(service, model, layer_set, search, most)
        else:
            found = _fetched(service, model, layer_set, _indices(features or "", None))
    write_explanations(out, found)
    print(f"{out}: {sum(map(len, found.values()))} explanations of {len(found)} features")


def _fetched(service: Any, model: str, layer_set: str, indices: list[int]) -> dict[int, Any]:
    from marple.tools.saes.neuronpedia import explanations_of

    with _bars() as report:
        found = {}
        for done, index in enumerate(indices, start=1):
            found[index] = explanations_of(service.feature(model, layer_set, index))
            report(done, len(indices), "features")
    return found


def _searched(service: Any, model: str, layer_set: str, query: str, most: int) -> dict[int, Any]:
    from marple.tools.saes.neuronpedia import explanations_of

    found: dict[int, Any] = {}
    offset, count = 0, 0
    while count < most:
        page = service.search_explanations(model, [layer_set], query, offset=offset)
        rows = [row for row in page.get("results") or () if isinstance(row, dict)][: most - count]
        for row in rows:
            if str(row.get("index", "")).isdigit():
                index = int(row["index"])
                found[index] = (*found.get(index, ()), *explanations_of({"explanations": [row]}))
        count += len(rows)
        following = page.get("nextOffset")
        if not rows or not page.get("hasMore") or not isinstance(following, int) or following <= offset:
            break
        offset = following
    return found


def _indices(text: str, features: int | None) -> list[int]:
    """Numbers and ranges such as ``3,10-12``."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        last = int(match[2] or match[1]) if match else -1
        if match is None or last < int(match[1]) or last - int(match[1]) > 100_000:
            raise UsageError(f"features is {text!r}; give numbers and ranges, such as 3,10-12")
        found += range(int(match[1]), last + 1)
    if features is not None and max(found) >= features:
        raise UsageError(f"feature {max(found)} does not exist; this SAE has 0 to {features - 1}")
    return list(dict.fromkeys(found))
