"""What the outcome of a reply hangs on: importance of its sentences, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marple.errors import ToolError
from marple.tools.arguments import sample_seed
from marple.tools.contract import Artifact
from marple.tools.plots import CONTROL, REFERENCE, TARGET, figure, plot_artifact, visible
from marple.tools.statistics import benjamini_hochberg
from marple.tools.target.target import Target
from marple.tools.thoughts.outcomes import NO_OUTCOME, compare_outcomes, share_interval, shares
from marple.tools.thoughts.splitting import sentences

__all__ = [
    "check_sentences",
    "halves_apart",
    "plot_arms",
    "plot_sentences",
    "sentence_importances",
    "show_shares",
]

_MOST_SENTENCES = 60
_SAME_SENTENCE = 0.8
_LEAST_OTHER = 4
_COLOURS = (TARGET, REFERENCE, "#3d8f5f", "#7a5ba6")


def check_sentences(parts: Sequence[str], reply: str | None) -> None:
    """Raise a ToolError unless there are between one and 60 sentences."""
    if not parts:
        raise ToolError('the reply is empty; give one, for example "reply": "I like lamps. So I take the lamp."')
    if len(parts) > _MOST_SENTENCES:
        whose = "given" if reply is not None else "sampled"
        raise ToolError(
            f"the reply {whose} has {len(parts)} sentences, and at most {_MOST_SENTENCES} are resampled in a call; "
            "give the part that matters as reply"
        )


def sentence_importances(
    parts: Sequence[str], texts: Sequence[Sequence[str]], ends: Sequence[Sequence[str]], *, seed: int
) -> list[dict[str, Any]]:
    """For each sentence, how far the outcomes of continuing before it and behind it lie apart.

    Args:
        parts: the sentences.
        texts: the continuations drawn before each sentence, and behind the last.
        ends: their outcomes.
        seed: of the shuffles.
    """
    rows = []
    for at, sentence in enumerate(parts):
        change = compare_outcomes(ends[at], ends[at + 1], seed=sample_seed(seed, "sentence", at))
        other = [end for more, end in zip(texts[at], ends[at], strict=True) if not _says_again(more, sentence)]
        row: dict[str, Any] = {
            "sentence": sentence.strip(),
            "importance": change.to_dict(),
            "said_otherwise": len(other),
        }
        # Too few continuations that differ say nothing; the model is sure of the sentence itself.
        enough = len(other) >= _LEAST_OTHER
        named = sample_seed(seed, "counterfactual", at)
        row["counterfactual"] = compare_outcomes(other, ends[at + 1], seed=named).to_dict() if enough else None
        rows.append(row)
    for row, q in zip(rows, benjamini_hochberg([row["importance"]["p"] for row in rows]), strict=True):
        row["q"] = float(q)
    return rows


def _says_again(continuation: str, sentence: str) -> bool:
    """Whether a continuation begins with about the same words (Jaccard similarity of at least 0.8)."""
    first = next((part for part in sentences(continuation) if part.strip()), "")
    ours, theirs = (set(text.casefold().replace(".", " ").split()) for text in (first, sentence))
    return len(ours & theirs) >= _SAME_SENTENCE * max(1, len(ours | theirs))


def halves_apart(group: Sequence[str], seed: int) -> dict[str, Any]:
    """How far the first half of a set of outcomes lies from the second: chance alone."""
    middle = len(group) // 2
    return compare_outcomes(group[:middle], group[middle:], seed=seed).to_dict()


def plot_sentences(parts: Sequence[str], ends: Sequence[Sequence[str]]) -> Artifact:
    """Share of the most frequent outcomes over the sentences kept, with 95 % intervals."""
    every = [end for group in ends for end in group]
    names = [name for name in shares(every) if name != NO_OUTCOME][:4] or [NO_OUTCOME]
    with figure(max(5.0, 0.7 * len(parts) + 2.5), 3.6) as (made, axes):
        places = list(range(len(ends)))
        for at, name in enumerate(names):
            counts = [group.count(name) for group in ends]
            spans = [share_interval(count, len(group)) for count, group in zip(counts, ends, strict=True)]
            colour = _COLOURS[at]
            share = [count / len(group) for count, group in zip(counts, ends, strict=True)]
            axes[0].plot(places, share, marker="o", color=colour, label=visible(name, limit=24))
            axes[0].fill_between(
                places, [low for low, _ in spans], [high for _, high in spans], color=colour, alpha=0.12, linewidth=0
            )
        axes[0].axhline(0, color=CONTROL, linewidth=0.8)
        labels = ["(none)", *(visible(part.strip(), limit=14) for part in parts)]
        axes[0].set_xticks(places, labels, rotation=35, ha="right", fontsize=7)
        axes[0].set(xlabel="last sentence kept", ylabel="share of continuations", ylim=(-0.03, 1.03))
        axes[0].legend(title="outcome")
        return plot_artifact("outcomes-by-sentence", made)


def plot_arms(ends: Sequence[Sequence[str]]) -> Artifact:
    """Share of each outcome without and with the edit, with 95 % intervals."""
    names = list(shares([end for group in ends for end in group]))[:8]
    with figure(6.0, 1.4 + 0.4 * len(names)) as (made, axes):
        for side, (group, colour, label) in enumerate(
            zip(ends, (CONTROL, TARGET), ("unedited", "edited"), strict=True)
        ):
            share = [group.count(name) / len(group) for name in names]
            spans = [share_interval(group.count(name), len(group)) for name in names]
            reach = [
                [max(0.0, value - low) for value, (low, _) in zip(share, spans, strict=True)],
                [max(0.0, high - value) for value, (_, high) in zip(share, spans, strict=True)],
            ]
            places = [at + (side - 0.5) * 0.38 for at in range(len(names))]
            axes[0].barh(places, share, height=0.36, color=colour, label=label, xerr=reach, ecolor="#555555")
        axes[0].set_yticks(range(len(names)), [visible(name, limit=28) for name in names])
        axes[0].invert_yaxis()
        axes[0].set(xlabel="share of continuations", xlim=(0, 1.03))
        axes[0].legend()
        return plot_artifact("outcomes-by-edit", made)


def show_shares(target: Target, ends: Sequence[str]) -> str:
    """The most frequent outcomes as text."""
    top = list(shares(ends).items())
    shown = ", ".join(f"{target.quote(name, limit=40)} {share:.0%}" for name, share in top[:4])
    return shown + (f" and {len(top) - 4} others" if len(top) > 4 else "")
