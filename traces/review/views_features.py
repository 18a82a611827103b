"""How features of sparse autoencoders, transcripts, monitors and code are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marple.traces.review.blocks import Block, Card, Cards, Cell, Heat, Note, Piece, Table, Token, bar, level, share
from marple.traces.review.fields import items, mapping, number, rows, text
from marple.traces.review.views_prompting import conversation_cell, left_out

__all__ = ["VIEWS"]

_CARDS = 12


def _features(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    found = rows(data.get("features"))
    note = f"{len(found) - _CARDS} more in the data" if len(found) > _CARDS else ""
    yield Cards(f"Features at {text(data.get('site'))}", [_card(row) for row in found[:_CARDS]], note=note)
    tokens = rows(data.get("tokens"))
    if tokens:
        strongest = [_strength(one) for one in tokens]
        largest = max(strongest, default=0.0)
        yield Heat(
            "Strongest feature by token",
            [
                Token(text(one.get("token")), level(value, largest), _named(one))
                for one, value in zip(tokens[:600], strongest, strict=False)
            ],
        )
    explained = mapping(controls.get("reconstruction"))
    if explained:
        said = f"leaves {100 * (number(explained.get('fvu')) or 0):.1f} % of the variance unexplained on these tokens"
        yield Note("The autoencoder", f"{said}, {number(explained.get('l0')) or 0:.0f} features active", control=True)
    random = number(mapping(controls.get("random_directions")).get("logit_effect_p95"))
    if random is not None:
        said = f"the strongest token's effect is up to {random:.2f} standard deviations (95 %)"
        yield Note("Random directions", said, control=True)
    if number(controls.get("matching")) is not None:
        said = f"{controls.get('matching')} of {controls.get('searchable')} searchable features match"
        yield Note("By chance", said, control=True)


def _strength(one: Mapping[str, Any]) -> float:
    return max((number(pair[1]) or 0.0 for pair in items(one.get("features")) if len(items(pair)) > 1), default=0.0)


def _named(one: Mapping[str, Any]) -> str:
    return ", ".join(
        f"feature {pair[0]} {number(pair[1]) or 0:.1f}"
        for pair in items(one.get("features"))[:3]
        if len(items(pair)) > 1
    )


def _card(row: Mapping[str, Any]) -> Card:
    facts = [
        (name, f"{value:.{digits}f}")
        for name, key, digits in (
            ("density", "density", 4),
            ("activation", "activation", 2),
            ("mean", "mean", 2),
            ("match", "match", 2),
            ("logit effect", "logit_effect", 2),
        )
        if (value := number(row.get(key))) is not None
    ]
    lines: list[tuple[str, Sequence[Piece]]] = [
        ("“”", [(text(one), False)]) for one in items(row.get("explanations"))[:2]
    ]
    lines += [
        (name, [(_pairs(row.get(key)), False)])
        for name, key in (("fires on", "tokens"), ("promotes", "promotes"), ("suppresses", "suppresses"))
        if items(row.get(key))
    ]
    for one in rows(mapping(row.get("card")).get("examples"))[:3]:
        said = [
            (f"{text(one.get('before'))} ", False),
            (text(one.get("token")), True),
            (f" {text(one.get('after'))}", False),
        ]
        lines.append((f"{number(one.get('activation')) or 0:.1f}", said))
    return Card(f"feature {row.get('feature', row.get('index'))}", facts, lines)


def _pairs(value: Any) -> str:
    return "  ".join(f"{text(pair[0])} {number(pair[1]) or 0:.2f}" for pair in items(value)[:6] if len(items(pair)) > 1)


def _compare(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    found = rows(data.get("rows"))
    largest = max((abs(number(row.get("score")) or 0.0) for row in found), default=0.0)
    yield Table(
        f"Features that differ at {text(data.get('site'))}",
        ("feature", "score", "first", "second", "q", "fires on", "promotes", "reference shows it too"),
        [
            (
                Cell(str(row.get("feature")), "strong" if row.get("found") is True else "num"),
                bar(row.get("score"), largest),
                share(row.get("first_mean")),
                share(row.get("second_mean")),
                share(row.get("q"), 3),
                Cell(_pairs(row.get("tokens"))),
                Cell(_pairs(row.get("promotes"))),
                Cell("yes" if row.get("reference_shows_it_too") is True else "", "bad"),
            )
            for row in found[:20]
        ],
        note="bold: found, beyond shuffled labels; "
        + (f"{len(found) - 20} more in the data" if len(found) > 20 else f"{len(found)} features"),
    )
    flat = [(name.replace("_", " "), one) for name, one in controls.items() if number(one) is not None]
    if flat:
        yield Table("Controls", ("control", "value"), [(Cell(name), share(one)) for name, one in flat], control=True)


def _transcripts(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    for name, value in data.items():
        found = rows(value)
        if found and any(set(row) & {"text", "snippet", "content", "excerpt", "passage"} for row in found):
            yield Cards(name.replace("_", " ").capitalize(), [_hit(row) for row in found[:24]], untrusted=True)
        elif found:
            columns = list(dict.fromkeys(key for row in found for key in row if not isinstance(row[key], dict | list)))[
                :8
            ]
            shown = [[Cell(_short(row.get(key))) for key in columns] for row in found[:40]]
            yield Table(name.replace("_", " ").capitalize(), columns, shown, untrusted=True)


def _hit(row: Mapping[str, Any]) -> Card:
    said = next(
        (text(row[key]) for key in ("snippet", "excerpt", "passage", "text", "content") if text(row.get(key))), ""
    )
    facts = [
        (key, _short(value))
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    name = row.get("id", row.get("conversation", row.get("transcript", "")))
    return Card(f"{name} {text(row.get('role'))}".strip(), facts[:4], [("", [(said[:2000], False)])])


def _monitor(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    area = mapping(data.get("auroc"))
    if area:
        value = number(area.get("auroc"))
        low, high = number(area.get("ci_low")), number(area.get("ci_high"))
        said = f"{value or 0:.3f}, 95 % {low or 0:.3f} to {high or 0:.3f}"
        yield Note("AUROC", said, "good" if (low or 0) > 0.5 else "unsure")
    scores = [number(one) or 0.0 for one in items(data.get("scores"))]
    yield _scored(scores, data.get("conversations"), items(data.get("labels")))
    beside = [number(one) or 0.0 for one in items(controls.get("random_directions"))]
    length = number(mapping(controls.get("length")).get("auroc"))
    if beside or length is not None:
        shown = [(Cell("random direction"), bar(one)) for one in beside[:10]]
        shown += [] if length is None else [(Cell("reply's length"), bar(length))]
        yield Table("AUROC of the controls", ("control", "AUROC"), shown, control=True)


def _scored(scores: Sequence[float], conversations: Any, labels: Sequence[Any]) -> Table:
    """The conversations, those with the highest scores first: a wrong one among them is seen at once."""
    largest = max((abs(one) for one in scores), default=0.0)
    lines = []
    for at in sorted(range(len(scores)), key=lambda one: -scores[one])[:60]:
        label = [Cell("yes", "good") if labels[at] is True else Cell("no", "dim")] if at < len(labels) else []
        said = [conversation_cell(conversations, at)]
        said += [conversation_cell(conversations, at, reply=True)] if items(conversations) else []
        lines.append([bar(scores[at], largest, 3), *label, *said])
    columns = [
        "score",
        *(["looked for"] if labels else []),
        "conversation",
        *(["reply"] if items(conversations) else []),
    ]
    return Table("Scores, highest first", columns, lines, note=left_out(len(scores)), untrusted=True)


def _python(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    ended = text(data.get("ended"))
    yield Note(f"The code {ended or 'ended'}", text(data.get("error")), "" if ended == "finished" else "bad")


def _short(value: Any) -> str:
    real = number(value)
    return f"{real:g}" if real is not None else str(value if value is not None else "")[:300]


VIEWS = {
    "sae_features": _features,
    "sae_lookup": _features,
    "sae_search": _features,
    "sae_compare": _compare,
    "search_transcripts": _transcripts,
    "try_monitor": _monitor,
    "python": _python,
}
