"""What is said of a comparison of features: rows, the tokens they promote together, controls, a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marple.tools.contract import Artifact, Cost, ToolResult
from marple.tools.lenses import lens_of_directions, show_tokens, top_tokens
from marple.tools.ngrams import is_filler
from marple.tools.saes.comparison import Comparison
from marple.tools.saes.effects import logit_effect
from marple.tools.saes.pictures import comparison_plot
from marple.tools.saes.pooling import Pooled
from marple.tools.saes.reading import ChosenSAE, card_data, feature_label, short_label
from marple.tools.saes.sae import SAE
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines

__all__ = ["ComparisonReport"]

_KEPT = 200
_SHOWN_UNFOUND = 5
_TOKENS = 10
_TOKENS_READ = 100
"""Tokens promoted together among which words of content are looked for."""
_PERSON_WORDS = "i you he she we they me him her us them my your his our their"
_PERSONS = frozenset(_PERSON_WORDS.split())
"""Function words as well; ``ngrams`` counts them as content, because who is spoken of in a reply can be a finding."""
_STRONG_EFFECT = 3.0
"""Standard deviations over the vocabulary; below, a decoder row's logits are hardly more than noise."""


@dataclass(frozen=True)
class ComparisonReport:
    """What is said of a comparison."""

    model: Target
    chosen: ChosenSAE
    features: NDArray[np.int64]
    found: Comparison
    names: tuple[str, str]
    measured: tuple[Pooled, Pooled]

    def result(self, cost: Cost, controls: dict[str, Any], ordinary: set[int]) -> ToolResult:
        """The tool's result.

        Args:
            cost: of the call.
            controls: those that were run beside; ``half_against_half`` is needed.
            ordinary: features that the same contrast finds on the reference.
        """
        rows = [self._row(int(at), ordinary) for at in self.found.order[:_KEPT]]
        self._mark_content([row for row in rows if row["found"]])
        raw = self.measured[0].activation.mean(0) - self.measured[1].activation.mean(0)
        baseline = top_tokens(self.model, lens_of_directions(self.model, raw.unsqueeze(0))[0], _TOKENS)
        every = {"risen": self._together(1), "fallen": self._together(-1)}
        together = {label: tokens[:_TOKENS] for label, tokens in every.items()}
        content = {label: [one for one in tokens if self._is_content(one["token"])] for label, tokens in every.items()}
        handle = self._handle()
        explained = {
            name: {"fvu": round(one.explained.fvu, 4), "l0": round(one.explained.l0, 2)}
            for name, one in zip(self.names, self.measured, strict=True)
        }
        return ToolResult(
            text=fit_lines(self._lines(rows, together, content, baseline, controls, handle)),
            data={
                "sae": self.chosen.name,
                "site": str(self.chosen.site),
                "rows": rows,
                "rows_left_out": max(0, len(self.features) - _KEPT),
                "promoted_together": together,
                "content_promoted_together": {label: tokens[:_TOKENS] for label, tokens in content.items()},
                "trained_on": _training(self.chosen.sae),
                "vector": handle,
            },
            artifacts=(self._plot(),),
            controls={
                "shuffled_labels": {"shuffles": self.found.shuffles, "score_threshold": round(self.found.threshold, 4)},
                **controls,
                "raw_difference_lens": baseline,
                "reconstruction": explained,
            },
            cost=cost,
            handles=(handle,) if handle else (),
        )

    def _changed(self, sign: int) -> NDArray[np.int64]:
        """Places of the features that were found and rose (1) or fell (-1)."""
        return np.flatnonzero(self.found.found & (sign * self.found.score > 0))

    def _rows_of(self, places: NDArray[np.int64]) -> torch.Tensor:
        return self.chosen.sae.weights.W_dec[torch.from_numpy(self.features[places])].cpu()

    def _together(self, sign: int) -> list[dict[str, Any]]:
        """The tokens that changed features promote most: the sum of score times logit effect, where that is strong."""
        places = self._changed(sign)
        if not len(places):
            return []
        effects = lens_of_directions(self.model, self._rows_of(places))
        scores = torch.from_numpy(np.abs(self.found.score[places])).to(effects)
        strong = torch.where(effects >= _STRONG_EFFECT, effects, 0.0)
        return [one for one in top_tokens(self.model, scores @ strong, _TOKENS_READ) if one["score"] > 0]

    def _is_content(self, token: str) -> bool:
        """Whether a token is neither a special one nor white space, punctuation or a function word."""
        word = token.strip().lower()
        return not (token in self.model.tokenizer.all_special_tokens or is_filler(word) or word in _PERSONS)

    def _mark_content(self, rows: list[dict[str, Any]]) -> None:
        """Say of features whether most of what they strongly promote is content: by their cards, else by the lens."""
        bare = [row for row in rows if not row["promotes"]]
        effects = logit_effect(self.chosen.sae, self.model, [row["feature"] for row in bare]) if bare else []
        read = {row["feature"]: promoted for row, (promoted, _) in zip(bare, effects, strict=True)}
        for row in rows:
            promoted = read.get(row["feature"]) or row["promotes"] or ()
            strong = [token for token, effect in promoted if effect >= _STRONG_EFFECT]
            row["promotes_content"] = 2 * sum(map(self._is_content, strong)) > len(strong)
            row["promotes_on_model"] = [list(pair) for pair in read[row["feature"]]] if row["feature"] in read else None

    def _handle(self) -> str | None:
        """What the risen features add to the activations, kept as a vector."""
        places = self._changed(1)
        if not len(places):
            return None
        difference = torch.from_numpy((self.found.first_mean - self.found.second_mean)[places]).float()
        made = {"site": str(self.chosen.site), "from": f"sae_compare, {self.names[0]} minus {self.names[1]}"}
        return self.model.handles.put("vector", {"vector": difference @ self._rows_of(places)}, made)

    def _row(self, at: int, ordinary: set[int]) -> dict[str, Any]:
        found, index = self.found, int(self.features[at])
        first, second = self.names
        return {
            **card_data(self.chosen.sae, index),
            "found": bool(found.found[at]),
            "score": round(float(found.score[at]), 4),
            f"{first}_mean": round(float(found.first_mean[at]), 4),
            f"{second}_mean": round(float(found.second_mean[at]), 4),
            f"{first}_share": round(float(found.first_share[at]), 4),
            f"{second}_share": round(float(found.second_share[at]), 4),
            "d": round(float(found.effect[at]), 3),
            "p": round(float(found.p[at]), 5),
            "q": round(float(found.q[at]), 5),
            "halves_agree": bool(found.replicated[at]),
            "reference_shows_it_too": index in ordinary,
            "promotes_content": None,
            "promotes_on_model": None,
        }

    def _lines(
        self,
        rows: list[dict[str, Any]],
        together: dict[str, list[dict[str, Any]]],
        content: dict[str, list[dict[str, Any]]],
        baseline: list[dict[str, Any]],
        controls: dict[str, Any],
        handle: str | None,
    ) -> Iterator[str]:
        found, model = self.found, self.model
        yield (
            f"{int(found.found.sum())} of {len(self.features)} active features differ, {self.names[0]} minus "
            f"{self.names[1]} at {self.chosen.site} (|score| above {found.threshold:.2f}, the null's largest, and "
            "q <= 0.05)"
        )
        yield self._handle_line(handle)
        for label, tokens in together.items():
            words, form = content[label], [one for one in tokens if one not in content[label]]
            yield (
                f"tokens that {label} features promote together: content words "
                f"{show_tokens(model, words, _TOKENS) or 'none'}; others {show_tokens(model, form, _TOKENS) or 'none'}"
            )
        yield self._training_line()
        halves = controls["half_against_half"]
        chance = "too few prompts" if halves is None else f"{halves['found']} found"
        yield f"control, half of {self.names[0]} against its other half: {chance}"
        if "on_reference" in controls:
            yield f"control, the same contrast on the reference: {controls['on_reference']['found']} found"
        yield f"baseline, the lens on the raw mean difference: {show_tokens(model, baseline, _TOKENS)}"
        yield from self._row_lines(rows)

    def _handle_line(self, handle: str | None) -> str:
        if handle is None:
            return "no feature rose, so there is no vector of those that rose"
        return (
            f"vector {handle}: what the {len(self._changed(1))} features that rose add at {self.chosen.site}; steer "
            "and project take it by this name"
        )

    def _training_line(self) -> str:
        """What the SAE was made from, as its files say."""
        sae, about = self.chosen.sae, _training(self.chosen.sae)
        model = f"activations of {self.model.quote(about['model'], limit=80)}" if about["model"] else "no model named"
        texts = f"texts {self.model.quote(about['texts'], limit=80)}" if about["texts"] else "no texts named"
        tokens = f", {about['tokens']} tokens" if about["tokens"] else ""
        return (
            f"the SAE ({sae.architecture}, {sae.d_sae} features) was trained on, by its files: {model}, {texts}{tokens}"
        )

    def _row_lines(self, rows: list[dict[str, Any]]) -> Iterator[str]:
        """Features found, those that promote content first, then the largest of the others."""
        found = [row for row in rows if row["found"]]
        content = [row for row in found if row["promotes_content"]]
        form = [row for row in found if not row["promotes_content"]]
        if content:
            yield f"found, features that promote content words ({len(content)} of {len(found)} kept):"
        yield from map(self._line, content)
        if form:
            yield (
                f"found, features that promote punctuation, function words, special tokens or nothing strongly "
                f"({len(form)} of {len(found)} kept):"
            )
        yield from map(self._line, form)
        yield from map(self._line, [row for row in rows if not row["found"]][:_SHOWN_UNFOUND])

    def _line(self, row: dict[str, Any]) -> str:
        first, second = self.names
        text = (
            f"{'' if row['found'] else 'not found: '}feature {row['feature']}: score {row['score']:+.2f}, mean "
            f"{row[f'{first}_mean']:.3g} against {row[f'{second}_mean']:.3g}, d {row['d']:+.2f}, p {row['p']:.3g}"
        )
        text += "" if row["halves_agree"] else ", halves do not agree"
        text += ", the reference shows it too" if row["reference_shows_it_too"] else ""
        if row.get("promotes_on_model"):
            tokens = " ".join(self.model.quote(token, limit=20) for token, _ in row["promotes_on_model"][:3])
            text += f", raises {tokens}"
        return f"{text}; {feature_label(self.chosen.sae, row['feature'], self.model.quote)}"

    def _plot(self) -> Artifact:
        labels = [short_label(self.chosen.sae, int(self.features[at])) for at in self.found.order[:12]]
        return comparison_plot(self.found, labels, first=self.names[0], second=self.names[1])


def _training(sae: SAE) -> dict[str, Any]:
    """The model, texts and number of tokens that an SAE's files name: untrusted; None where they say nothing."""
    about, measured = sae.metadata, sae.metadata.get("measured")
    texts = next((about[key] for key in ("dataset_path", "dataset", "dataset_name") if about.get(key)), None)
    tokens = measured.get("training_tokens") if isinstance(measured, Mapping) else about.get("training_tokens")
    return {
        "model": str(about["model_name"]) if about.get("model_name") else None,
        "texts": str(texts) if texts else None,
        "tokens": tokens if isinstance(tokens, int) else None,
    }
