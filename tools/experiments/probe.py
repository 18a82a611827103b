"""Is something linearly decodable from the activations, beyond what the words already say?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Text
from marple.tools.contract import Artifact, Cost, ToolResult, tool
from marple.tools.engine.sites import Site, SiteName
from marple.tools.probes.keeping import keep_probe, probe_to_bytes
from marple.tools.probes.report import sweep_controls, sweep_data, sweep_lines, sweep_plot
from marple.tools.probes.solvers import Method
from marple.tools.probes.sweep import Rows, Sweep, sweep_layers
from marple.tools.prompt_tokens import resolve_layers
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines
from marple.tools.vectors.contrast_sets import (
    ContrastText,
    ContrastTexts,
    Reading,
    check_sets,
    encode_texts,
    read_states,
    shown_text,
)

__all__ = ["probe"]

Groups = Annotated[list[Text], Field(max_length=20_000)]


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target()
    nouns = ("cat", "dog", "bird", "tree", "road", "house", "river", "stone")
    pairs = [(one, other) for one in nouns for other in nouns]
    # Both sides hold the same words: only the order tells, and the last token carries it.
    good: list[ContrastText] = [f"bad {one} {other} good" for one, other in pairs]
    bad: list[ContrastText] = [f"good {one} {other} bad" for one, other in pairs]
    order = probe(target, seed=1, positive=good, negative=bad, chat=False, shuffles=50).data
    assert order["verdict"] == "decodable beyond baselines", f"order of words: {order['verdict']}, {order['reason']}"
    mixed = [good[at] for at in np.random.default_rng(0).permutation(len(good))]
    same = probe(target, seed=1, positive=mixed[::2], negative=mixed[1::2], chat=False, shuffles=50).data
    assert same["verdict"] != "decodable beyond baselines", f"texts of one kind: {same['verdict']}, {same['reason']}"
    red: list[ContrastText] = [f"red {one} {other}" for one, other in pairs]
    word = probe(target, seed=1, positive=red, negative=bad, chat=False, shuffles=50).data
    assert word["verdict"] in ("explained by words", "explained by length"), f"other words: {word['verdict']}"


@tool(rung=2, parallel=True, family="probing", self_test=_self_test)
def probe(
    target: Target,
    *,
    seed: int,
    positive: ContrastTexts,
    negative: ContrastTexts,
    groups: Groups | None = None,
    ood_positive: ContrastTexts | None = None,
    ood_negative: ContrastTexts | None = None,
    layers: Annotated[list[int], Field(min_length=1)] | None = None,
    site: SiteName = "resid_post",
    reading: Reading = "last",
    method: Method = "ridge",
    folds: Annotated[int, Field(ge=2, le=20)] = 5,
    shuffles: Annotated[int, Field(ge=20, le=2000)] = 200,
    chat: bool = True,
    system: Text | None = None,
) -> ToolResult:
    """Find out whether a property of texts can be read off the activations, beyond what their words and length tell.

    Linear probes (Alain & Bengio 2017) at every layer from one pass, cross-validated; the difference of means (Marks
    & Tegmark 2024) always beside. Controls: shuffled labels with the same search over layers and strengths (after the
    control tasks of Hewitt & Liang 2019), a bag of words, the best single word, and length, on the same folds. AUROC
    with DeLong's interval (1988). Verdict "decodable beyond baselines" only if the probe exceeds them all; "explained
    by words" or "explained by length" if such a baseline is within reach; else "no claim", always so with fewer than
    eight texts on a side. Where features outnumber texts it must exceed every single shuffle. That something is
    decodable does not say that the model uses it: steer with the handle.

    Args:
        positive: texts with the property (user messages, or conversations, which may end with the assistant's turn).
        negative: as like them as possible, without it.
        groups: one name per text, positive then negative; texts of a group (a template, a pair) stay in one fold.
        ood_positive: texts from elsewhere with the property (other phrasings, other topics), never fitted on.
        ood_negative: and without it.
        layers: from 0; all by default.
        site: where in each layer.
        reading: activation of the last token, or the mean over tokens.
        method: ridge, lda (shrunk), difference_of_means or logistic (slower).
        folds: of the cross-validation.
        shuffles: label permutations.
        chat: whether texts get the chat template.
        system: system prompt of texts that are no conversations.

    Returns:
        Verdict; AUROC with interval at each layer; shuffled labels and baselines; a handle of the best layer's probe
        for project and steer.

    Example:
        {"positive": ["I love it", "It is great", "So good", "I like it", "It is nice"],
        "negative": ["I hate it", "It is awful", "So bad", "I loathe it", "It is grim"]}
    """
    check_sets(positive, negative, least=folds)
    sites = [Site(layer, site) for layer in resolve_layers(target, layers, site=site)]
    rows, cost = _read(target, positive, negative, sites, reading, chat, system)
    rows = Rows(rows.features, rows.labels, rows.texts, rows.lengths, _grouping(groups, rows.texts))
    elsewhere = None
    if ood_positive is not None or ood_negative is not None:
        check_sets(ood_positive or [], ood_negative or [], prefix="ood_")
        elsewhere, more = _read(target, ood_positive or [], ood_negative or [], sites, reading, chat, system)
        cost += more
    found = sweep_layers(rows, method=method, folds=folds, shuffles=shuffles, seed=seed, ood=elsewhere)
    handle = keep_probe(target, found.probe, site=found.best.site, metadata=_metadata(found))
    told = f"{len(positive)} positive and {len(negative)} negative texts"
    return ToolResult(
        text=fit_lines([*sweep_lines(found, quote=target.quote, rows=told), f"probe {handle} at {found.best.site}"]),
        data={**sweep_data(found), "handle": handle, "texts": {"positive": len(positive), "negative": len(negative)}},
        artifacts=(
            sweep_plot(found),
            Artifact(
                "probe.safetensors",
                "application/octet-stream",
                probe_to_bytes(found.probe, site=found.best.site, metadata=_metadata(found)),
            ),
        ),
        controls=sweep_controls(found),
        cost=cost,
        handles=(handle,),
    )


def _read(
    target: Target,
    positive: Sequence[ContrastText],
    negative: Sequence[ContrastText],
    sites: Sequence[Site],
    reading: Reading,
    chat: bool,
    system: str | None,
) -> tuple[Rows, Cost]:
    texts = [*positive, *negative]
    prompts = encode_texts(target, texts, chat=chat, system=system)
    states = read_states(target, prompts, sites, reading=reading)
    labels = np.arange(len(texts)) < len(positive)
    lengths = [len(prompt) for prompt in prompts]
    return Rows(states, labels, [shown_text(text) for text in texts], lengths), Cost(prompt_tokens=sum(lengths))


def _grouping(groups: Sequence[str] | None, texts: Sequence[str]) -> Any:
    """Groups as numbers: those given, else one for each text that stands there more than once; None if all differ."""
    if groups is not None and len(groups) != len(texts):
        raise ToolError(
            f"groups has {len(groups)} names for {len(texts)} texts; give one per text, positive then negative"
        )
    names = list(groups or texts)
    if len(set(names)) == len(names):
        return None
    places = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names])


def _metadata(found: Sweep) -> dict[str, Any]:
    return {"verdict": found.claim.verdict, **found.best.auroc.to_dict(), "p_value": found.p_value}
