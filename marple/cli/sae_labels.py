"""``marple sae labels``: what others say of features, from Neuronpedia."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marple.cli.bars import bars
from marple.errors import UsageError

if TYPE_CHECKING:
    from marple.tools.saes.explanations import Explanation
    from marple.tools.saes.neuronpedia import Neuronpedia

__all__ = ["indices", "labels"]

_Found = dict[int, "tuple[Explanation, ...]"]


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
            found = _fetched(service, model, layer_set, indices(features or "", None))
    write_explanations(out, found)
    print(f"{out}: {sum(map(len, found.values()))} explanations of {len(found)} features")


def _fetched(service: Neuronpedia, model: str, layer_set: str, wanted: list[int]) -> _Found:
    from marple.tools.saes.neuronpedia import explanations_of

    with bars() as report:
        found = {}
        for done, index in enumerate(wanted, start=1):
            found[index] = explanations_of(service.feature(model, layer_set, index))
            report(done, len(wanted), "features")
    return found


def _searched(service: Neuronpedia, model: str, layer_set: str, query: str, most: int) -> _Found:
    from marple.tools.saes.neuronpedia import explanations_of

    found: _Found = {}
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


def indices(text: str, features: int | None) -> list[int]:
    """Feature numbers from a text such as ``3,10-12``.

    Raises:
        UsageError: it is something else, or beyond the number of ``features`` if that is known.
    """
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
