"""A card per feature: where it fires, how often, and what it does to the logits. Made from texts, without a judge."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marple.errors import UsageError
from marple.tools.lenses import token_text
from marple.tools.saes.effects import Effect, logit_effect

if TYPE_CHECKING:
    from marple.tools.saes.activations import Activations
    from marple.tools.saes.sae import SAE
    from marple.tools.target.target import Target

__all__ = [
    "CARDS",
    "Card",
    "Example",
    "make_cards",
    "read_cards",
    "write_cards",
]

CARDS = "cards.jsonl"
"""Name of the file beside an SAE."""
_TOKENS = 5
_EXAMPLES = 3
_BEFORE, _AFTER = 8, 2
_MOST_ACTIVE = 128


@dataclass(frozen=True)
class Example:
    """A place where a feature fires."""

    before: str
    token: str
    after: str
    activation: float


@dataclass(frozen=True)
class Card:
    """What is known of a feature. Every string in it came out of a model's texts and tokenizer."""

    index: int
    density: float
    """Share of the texts' tokens on which it is active, from 0 to 1."""
    mean: float
    """Mean activation where it is active."""
    maximum: float
    tokens: tuple[tuple[str, float], ...]
    """The tokens it fires on, with their shares of its summed activation, largest first."""
    examples: tuple[Example, ...]
    """The strongest, on different tokens or texts where there are such."""
    raises: tuple[tuple[str, float], ...]
    """Tokens whose logits its decoder row raises most, read by the logit lens, in standard deviations over the
    vocabulary."""


def make_cards(
    sae: SAE,
    target: Target,
    activations: Activations,
    *,
    features: Sequence[int] | None = None,
    examples: int = _EXAMPLES,
) -> dict[int, Card]:
    """Cards from activations and the tokens they belong to.

    Args:
        sae: its features.
        target: whose activations they are; its tokenizer and unembedding are used.
        activations: of the texts.
        features: which; None for all, dead ones included.
        examples: how many on a card.
    """
    fired = _fired(sae, activations)
    chosen = range(sae.d_sae) if features is None else [sae.check_feature(index) for index in features]
    effects = logit_effect(sae, target, chosen)
    show = functools.lru_cache(maxsize=None)(lambda token: token_text(target, token))
    return {
        index: _card(index, fired, activations, show, effect, examples)
        for index, effect in zip(chosen, effects, strict=True)
    }


def read_cards(path: Path, *, features: int) -> dict[int, Card]:
    """Cards by feature.

    Raises:
        UsageError: the file is broken, or a card is of a feature that the SAE has not.
    """
    found = {}
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                card = _from_json(json.loads(line))
                found[card.index] = card
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"cards {str(path)!r} cannot be read: {error!r}") from error
    if found and not 0 <= min(found) <= max(found) < features:
        raise UsageError(
            f"cards {str(path)!r} describe features beyond 0 to {features - 1}: they belong to another SAE"
        )
    return found


def write_cards(path: Path, cards: Mapping[int, Card]) -> None:
    """Write cards, one JSON object per line."""
    lines = (json.dumps(asdict(card), ensure_ascii=False, separators=(",", ":")) for card in cards.values())
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _from_json(row: dict[str, Any]) -> Card:
    pairs = {key: tuple((str(a), float(b)) for a, b in row[key]) for key in ("tokens", "raises")}
    return Card(
        index=int(row["index"]),
        density=float(row["density"]),
        mean=float(row["mean"]),
        maximum=float(row["maximum"]),
        examples=tuple(Example(**example) for example in row["examples"]),
        **pairs,
    )


# ---------------------------------------------------------------------------------------------- where features fire


@dataclass(frozen=True)
class _Fired:
    """Every active feature of every token, sorted by feature and then by falling activation."""

    position: NDArray[np.int64]
    value: NDArray[np.float32]
    bounds: NDArray[np.int64]
    """Where each feature begins, ``(d_sae + 1,)``."""

    def of(self, feature: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        part = slice(self.bounds[feature], self.bounds[feature + 1])
        return self.position[part], self.value[part]


def _fired(sae: SAE, activations: Activations) -> _Fired:
    values, features = sae.top(activations.values, min(_MOST_ACTIVE, sae.d_sae))
    active = (values > 0).cpu().numpy()
    position = np.nonzero(active)[0]
    value, feature = values.cpu().numpy()[active], features.cpu().numpy()[active]
    order = np.lexsort((-value, feature))
    bounds = np.searchsorted(feature[order], np.arange(sae.d_sae + 1))
    return _Fired(position[order], value[order], bounds)


def _card(
    index: int, fired: _Fired, activations: Activations, show: Callable[[int], str], effect: Effect, examples: int
) -> Card:
    position, value = fired.of(index)
    tokens: tuple[tuple[str, float], ...] = ()
    if len(position):
        kinds, inverse = np.unique(activations.tokens[position], return_inverse=True)
        mass = np.bincount(inverse, weights=value) / value.sum()
        largest = np.argsort(-mass, kind="stable")[:_TOKENS]
        tokens = tuple((show(int(kinds[at])), round(float(mass[at]), 3)) for at in largest)
    return Card(
        index=index,
        density=round(len(position) / max(1, len(activations.tokens)), 6),
        mean=round(float(value.mean()), 3) if len(value) else 0.0,
        maximum=round(float(value[0]), 3) if len(value) else 0.0,
        tokens=tokens,
        examples=tuple(_examples(position, value, activations, show, examples)),
        raises=effect[0],
    )


def _examples(
    position: NDArray[np.int64],
    value: NDArray[np.float32],
    activations: Activations,
    show: Callable[[int], str],
    count: int,
) -> Iterator[Example]:
    seen: set[tuple[int, ...]] = set()
    for at, strength in zip(position.tolist(), value.tolist(), strict=True):
        first, end = activations.bounds_around(at)
        start, stop = max(first, at - _BEFORE), min(end, at + 1 + _AFTER)
        around = tuple(activations.tokens[max(first, at - 2) : at + 1].tolist())
        if around in seen:
            continue
        seen.add(around)
        before, after = (
            " ".join(map(show, activations.tokens[a:b].tolist())) for a, b in ((start, at), (at + 1, stop))
        )
        yield Example(before, show(int(activations.tokens[at])), after, round(strength, 3))
        if len(seen) == count:
            return
