"""Two sets of prompts on the same model: which words differ."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from marple.tools.arguments import (
    MaxNewTokens,
    Model,
    Samples,
    Temperature,
    Text,
    TopP,
    Words,
    check_samples,
    choose_model,
    one_turn,
    sample_seed,
)
from marple.tools.contract import ToolResult, tool
from marple.tools.difference_text import KEPT_ROWS, Wording, fit_differences, kept_line, leading_ngrams
from marple.tools.differences import Difference, Differences, find_differences
from marple.tools.ngrams import ngrams
from marple.tools.replies import Sampling, cost_of, sample_replies
from marple.tools.target.target import Completion, Target
from marple.tools.target.text import fit_lines
from marple.tools.word_counts import Cell, WordCount, count_ngram, count_word, counts_as_data, spread_line, word_lines
from marple.tools.word_examples import EXAMPLES_LIMIT, Said, example_lines

__all__ = ["contrast"]

_FEW_PROMPTS = 6

_Counter = Callable[[str, Sequence[Cell]], list[WordCount]]

PromptSet = Annotated[list[Text], Field(min_length=2, max_length=5000)]


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    words = ["red", "green", "blue", "bird", "cat", "dog", "tree", "house"]
    target = tiny_target()
    result = contrast(target, seed=0, first=words, second=words, samples=2, max_new_tokens=3)
    assert not result.controls["first_against_second"]["found"], "a set of prompts differs from itself"
    row = result.data["rows"][0]
    assert row["first_n"] == len(words), "samples of one prompt are counted as independent"


@tool(rung=1, parallel=True, self_test=_self_test)
def contrast(
    target: Target,
    *,
    seed: int,
    first: PromptSet,
    second: PromptSet,
    system: Text | None = None,
    second_system: Text | None = None,
    samples: Samples = 2,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 64,
    on: Model = "target",
    words: Words | None = None,
) -> ToolResult:
    """Find the words and phrases that one model uses more often on one set of prompts than on another.

    This needs no reference. The statistics are those of compare, but the unit is the prompt: its samples share one
    vote, and the null shuffles whole prompts between the sets, so give at least six in each. Prompts on different
    subjects get different words from any model, so a row says whether the n-gram stands in the prompts and whether the
    same contrast on the reference, if one is loaded, finds it too.

    Args:
        first: user messages of the first set, such as prompts that might trigger something.
        second: user messages of the second set, as like the first as possible otherwise.
        system: system prompt of the first set, and of the second unless second_system is given; none if left out.
        second_system: system prompt of the second set.
        samples: replies per prompt.
        temperature: 0 is greedy, 1 the model's own distribution.
        top_p: mass of the nucleus; 1 is all tokens.
        max_new_tokens: longest reply.
        on: which model to examine.
        words: up to 20 words or phrases to count, whole words in any case.

    Returns:
        The n-grams found, with counts of replies, log-odds with 95 % interval, z and q; the strongest, with replies
        that contain them, and the words asked for, on the reference too.

    Example:
        {"first": ["Which lamp is best?", "Which chair is best?"], "second": ["What is a lamp?", "What is a chair?"]}
    """
    check_samples(len(first) + len(second), samples, temperature=temperature, max_new_tokens=max_new_tokens)
    model = choose_model(target, on)
    sampling = Sampling(samples, temperature, max_new_tokens, top_p)
    systems = [system] * len(first) + [second_system or system] * len(second)
    conversations = [one_turn(prompt, system=each) for prompt, each in zip([*first, *second], systems, strict=True)]

    sets = _Sets(first, second, samples)

    def measure(examined: Target, label: str) -> _Measured:
        rendered = [examined.render(conversation) for conversation in conversations]
        replies = sample_replies(examined, rendered, sampling, seed=seed, label=label)
        return _Measured(
            _differences(replies, len(first), seed=sample_seed(seed, label, "shuffles")),
            replies,
            sets.cell(label, replies),
        )

    found = measure(model, on)
    control = measure(target.reference, "reference") if target.reference is not None and on == "target" else None
    report = _Report(model, sets, found, control)
    controls: dict[str, Any] = {"first_against_second": found.effect.summary()}
    if control is not None:
        controls["on_reference"] = control.effect.summary()
    counted = report.counts(words or (), count_word)
    leading = report.counts(leading_ngrams(found.effect), count_ngram)
    return ToolResult(
        text="\n".join(report.texts(counted, leading)),
        data={
            "rows": report.rows(),
            "rows_left_out": max(0, len(found.effect.rows) - KEPT_ROWS),
            "words": counts_as_data(counted, named="word", first="first", second="second"),
            "leading": counts_as_data(leading, named="ngram", first="first", second="second"),
            "replies": _records(first, second, found.replies),
        },
        controls=controls,
        cost=cost_of(found.replies) + cost_of(control.replies if control else []),
    )


@dataclass(frozen=True)
class _Sets:
    """The two sets of prompts."""

    first: list[str]
    second: list[str]
    samples: int

    def cell(self, label: str, replies: Sequence[Sequence[Completion]]) -> Cell:
        def texts(samples: Sequence[Sequence[Completion]]) -> list[str]:
            return [reply.text for each in samples for reply in each]

        split = len(self.first)
        return Cell(label, texts(replies[:split]), texts(replies[split:]), [*self.first, *self.second], self.samples)


@dataclass(frozen=True)
class _Measured:
    """One model's replies and their differences."""

    effect: Differences
    replies: list[list[Completion]]
    cell: Cell


@dataclass(frozen=True)
class _Report:
    """What is said of the model examined, beside the control on the reference if there is one."""

    model: Target
    sets: _Sets
    measured: _Measured
    control: _Measured | None

    @functools.cached_property
    def in_prompts(self) -> set[str]:
        return set().union(*map(ngrams, (*self.sets.first, *self.sets.second)))

    @functools.cached_property
    def ordinary(self) -> set[tuple[str, bool]]:
        """N-grams that the reference shows too, and whether the first set has more of them."""
        return {(row.ngram, row.z > 0) for row in self.control.effect.found} if self.control else set()

    def counts(self, names: Sequence[str], counter: _Counter) -> dict[str, list[WordCount]]:
        cells = [self.measured.cell, *([self.control.cell] if self.control else [])]
        return {name: counter(name, cells) for name in names}

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for row in self.measured.effect.rows[:KEPT_ROWS]:
            record = row.to_dict(first="first", second="second")
            del record["condition"]
            record["first_replies"] = round(row.first * self.sets.samples)
            record["second_replies"] = round(row.second * self.sets.samples)
            record["in_prompts"] = row.ngram in self.in_prompts
            record["reference_shows_it_too"] = (row.ngram, row.z > 0) in self.ordinary
            rows.append(record)
        return rows

    def said(self) -> list[Said]:
        records = _records(self.sets.first, self.sets.second, self.measured.replies)
        return [Said(one["set"], one["prompt"], reply) for one in records for reply in one["replies"]]

    def note(self, row: Difference) -> str:
        in_prompts = "; it stands in the prompts" if row.ngram in self.in_prompts else ""
        return in_prompts + ("; the reference shows it too" if (row.ngram, row.z > 0) in self.ordinary else "")

    def texts(self, counted: dict[str, list[WordCount]], leading: dict[str, list[WordCount]]) -> Iterator[str]:
        quote, effect = self.model.quote, self.measured.effect
        if counted:
            yield fit_lines(word_lines(counted, quote=quote, label=_on, first="first", second="second", vote="prompt"))
        lines = [
            f"{len(effect.found)} of {len(effect.rows)} n-grams tested differ between the sets "
            f"(|z| >= {effect.z_threshold:.2f} and q <= 0.05; the samples of a prompt share one vote)",
            kept_line(effect),
        ]
        if min(len(self.sets.first), len(self.sets.second)) < _FEW_PROMPTS:
            lines.append(
                f"fewer than {_FEW_PROMPTS} prompts in a set: shuffling them shows almost nothing to be unlikely"
            )
        if self.control is not None:
            its, shared = self.control.effect, sum((row.ngram, row.z > 0) in self.ordinary for row in effect.found)
            lines.append(
                f"the same contrast on the reference: {len(its.found)} of {len(its.rows)} differ; {shared} of the "
                f"{len(effect.found)} above are among them"
            )
            if leading:
                lines.append("the strongest of these (replies of the first and of the second set that contain them):")
                lines += [spread_line(name, rows, quote=quote, label=_on) for name, rows in leading.items()]
        lines.append(fit_lines(example_lines(dict.fromkeys(leading, self.said()), quote=quote), limit=EXAMPLES_LIMIT))
        wording = Wording(quote, "first", "second", samples=self.sets.samples, conditions=False, note=self.note)
        yield fit_differences([line for line in lines if line], effect, wording=wording)


def _on(label: str) -> str:
    return f"on the {label}"


def _differences(replies: Sequence[Sequence[Completion]], in_first: int, *, seed: int) -> Differences:
    each = len(replies[0])
    group = np.arange(len(replies)) < in_first

    def shuffle(generator: np.random.Generator) -> NDArray[np.bool_]:
        return np.repeat(generator.permuted(group), each)

    texts = [reply.text for samples in replies for reply in samples]
    return find_differences(
        texts,
        first=np.repeat(group, each),
        conditions=["contrast"] * len(texts),
        weights=np.full(len(texts), 1 / each),
        shuffle=shuffle,
        seed=seed,
    )


def _records(first: list[str], second: list[str], replies: Sequence[Sequence[Completion]]) -> list[dict[str, Any]]:
    sets = ["first"] * len(first) + ["second"] * len(second)
    return [
        {"set": name, "prompt": prompt, "replies": [reply.text for reply in samples]}
        for name, prompt, samples in zip(sets, [*first, *second], replies, strict=True)
    ]
