"""What can be asked of a corpus of transcripts: search, count, sample, cluster, read."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marple.errors import ToolError
from marple.tools.contract import Cost, ToolResult
from marple.tools.target.target import Target
from marple.tools.target.text import fit_lines
from marple.tools.transcripts.clusters import Clustering, cluster, distinguishing_words, shuffled_silhouette
from marple.tools.transcripts.corpus import Selection, Transcript, outline, read_transcripts, snippet, terms_of
from marple.tools.transcripts.embedding import Activations, TfIdf
from marple.tools.transcripts.full_text import Hit, TermCount, count_terms, search_full_text

__all__ = ["CorpusQuery"]

_TYPICAL = 3
_FEW_GROUPS = range(2, 11)
_LONGEST_TURN = 1200
_LONGEST_HIT = 600


@dataclass(frozen=True)
class CorpusQuery:
    """A question to a corpus: which part of it, what, and how it is shown; each method is one operation."""

    target: Target
    chosen: Selection
    query: str
    seed: int
    limit: int
    """Longest list."""
    embedding: str
    """``tfidf`` or ``activations``."""
    layer: int | None

    def search(self) -> ToolResult:
        """Full text, ranked by BM25, with each term's count against the rest of the corpus."""
        terms = terms_of(self.query)
        every = read_transcripts(self.chosen.path)
        hits, counts, matching = search_full_text(
            every, terms, where=self.chosen.where, roles=self.chosen.roles, most=self.limit
        )
        size = next(iter(counts.values())).inside_n
        self._check_size(size)
        head = [f"{matching} of {size} transcripts match; the best {len(hits)} by BM25:"]
        records = self._show(hits, terms)
        controls = {"terms": {term: count.to_dict() for term, count in counts.items()}}
        lines = [*head, *self._count_lines(counts), *(self._hit_line(record) for record in records)]
        return ToolResult(fit_lines(lines), {"matching": matching, "n": size, "hits": records}, controls=controls)

    def search_semantically(self) -> ToolResult:
        """The nearest transcripts in the embedding, with how near a random one is."""
        terms = terms_of(self.query)
        space, numbers = self._space()
        similar = space.points @ space.embed([self.query])[0]
        order = np.argsort(-similar, kind="stable")[: self.limit]
        hits = [Hit(numbers[at], float(similar[at])) for at in order]
        records = self._show(hits, terms)
        usual, high = (float(np.quantile(similar, q)) for q in (0.5, 0.95))
        head = (
            f"nearest of {len(numbers)} transcripts by {space.name}; cosine of a transcript drawn at random: median "
            f"{usual:.2f}, 95th percentile {high:.2f}"
        )
        lines = [head, *(self._hit_line(record) for record in records)]
        controls = {"cosine_median": usual, "cosine_95": high, "embedding": space.name}
        return ToolResult(fit_lines(lines), {"n": len(numbers), "hits": records}, controls=controls, cost=_cost(space))

    def count(self, group_by: str | None) -> ToolResult:
        """In how many transcripts each term is said, by the values of a field if given."""
        terms = terms_of(self.query)
        every = read_transcripts(self.chosen.path)
        counts, by_value = count_terms(
            every, terms, where=self.chosen.where, roles=self.chosen.roles, group_by=group_by
        )
        self._check_size(next(iter(counts.values())).inside_n)
        if group_by is not None and set(by_value) == {"(none)"}:
            raise ToolError(f"group_by: no transcript has the field {group_by!r}; the fields are {self._fields()}")
        ranked = sorted(by_value.items(), key=lambda item: -sum(c.inside for c in item[1].values()))
        lines = list(self._count_lines(counts))
        for value, group in ranked[: self.limit]:
            lines.append(f"{self._quote(group_by or '')} {self._quote(value)}:")
            lines += [f"  {line}" for line in self._count_lines(group)]
        lines.append(f"{max(0, len(ranked) - self.limit)} more values in the data" if ranked else "")
        data = {
            "terms": {term: count.to_dict() for term, count in counts.items()},
            "groups": {value: {t: c.to_dict() for t, c in group.items()} for value, group in ranked},
        }
        return ToolResult(fit_lines(line for line in lines if line), data, controls={"terms": data["terms"]})

    def sample(self) -> ToolResult:
        """Reservoir sampling (Vitter 1985), so that memory holds the sample alone."""
        draw, kept, size = random.Random(self.seed), list[Transcript](), 0
        for transcript in self.chosen.transcripts():
            size += 1
            place = len(kept) if size <= self.limit else draw.randrange(size)
            if place < self.limit:
                kept[place : place + 1] = [transcript]
        self._check_size(size)
        kept.sort(key=lambda transcript: transcript.number)
        records = [self._record(one, outline(one, roles=self.chosen.roles)) for one in kept]
        head = (
            f"all {size} transcripts:" if len(kept) == size else f"{len(kept)} of {size} transcripts, drawn at random:"
        )
        return ToolResult(fit_lines([head, *map(self._hit_line, records)]), {"n": size, "hits": records})

    def read(self) -> ToolResult:
        """Whole transcripts by their ids."""
        ids = self.query.replace(",", " ").split()
        found = {one.id: one for one in self.chosen.transcripts() if one.id in ids}
        if not ids or len(found) < len(set(ids)):
            missing = ", ".join(sorted(set(ids) - set(found))) or "(none given)"
            raise ToolError(
                f"query: no transcript has the id {missing}; ids come with every hit, for example of sample"
            )
        asked = [found[name] for name in dict.fromkeys(ids)]
        return ToolResult(
            fit_lines(line for one in asked for line in self._transcript_lines(one)),
            {"transcripts": [_whole(one) for one in asked]},
        )

    def cluster(self, groups: int | None) -> ToolResult:
        """K-means with typical members, distinguishing words and the silhouette beside its chance."""
        space, numbers = self._space()
        most = len(numbers) // 2
        if most < 2 or (groups or 2) > most:
            raise ToolError(f"groups is {groups}, and {len(numbers)} transcripts give at most {most}; widen where")
        tried = [groups] if groups else [k for k in _FEW_GROUPS if k <= most]
        made = cluster(space.points, tried, seed=self.seed)
        chance = shuffled_silhouette(space.points, len(made.centres), seed=self.seed)
        records = self._groups(made, space.points, numbers)
        head = (
            f"{len(records)} groups of {len(numbers)} transcripts by {space.name}; silhouette {made.silhouette:.2f} "
            f"against {chance:.2f} with every dimension shuffled"
            + ("" if made.silhouette > chance + 0.05 else ": no groups beyond chance")
        )
        controls = {"silhouette": made.silhouette, "shuffled_silhouette": chance, "embedding": space.name}
        text = fit_lines([head, *self._group_lines(records)])
        return ToolResult(text, {"n": len(numbers), "groups": records}, controls=controls, cost=_cost(space))

    # ------------------------------------------------------------------ parts of the above

    def _space(self) -> tuple[TfIdf | Activations, list[int]]:
        numbers = [transcript.number for transcript in self.chosen.transcripts()]
        self._check_size(len(numbers))
        if self.embedding == "activations":
            return Activations(self.target, self.chosen, layer=self.layer), numbers
        return TfIdf(self.chosen, seed=self.seed), numbers

    def _groups(self, made: Clustering, points: Any, numbers: Sequence[int]) -> list[dict[str, Any]]:
        words = distinguishing_words(self.chosen, made.labels)
        records = []
        for group, telling in enumerate(words):
            members = np.flatnonzero(made.labels == group)
            hits = [Hit(numbers[at], 0.0) for at in made.typical(points, group, _TYPICAL)]
            terms = [word for word, _ in telling[:3]]
            typical = [{k: v for k, v in r.items() if k != "score"} for r in self._show(hits, terms)]
            records.append(
                {
                    "size": len(members),
                    "words": [{"word": word, "z": z} for word, z in telling],
                    "typical": typical,
                    "members": [numbers[at] for at in members.tolist()],
                }
            )
        return records

    def _group_lines(self, records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        for number, record in enumerate(records, start=1):
            words = ", ".join(f"{self._quote(one['word'])} (z {one['z']:.1f})" for one in record["words"][:6])
            yield f"group {number}, {record['size']} transcripts: {words or 'no telling words'}"
            yield from (f"  {self._hit_line(hit)}" for hit in record["typical"][:2])

    def _show(self, hits: Sequence[Hit], terms: Sequence[str]) -> list[dict[str, Any]]:
        """The hits in their order, with context; a second pass over the corpus fetches them."""
        wanted = {hit.number for hit in hits}
        texts = {
            one.number: self._record(one, snippet(one, terms, roles=self.chosen.roles))
            for one in read_transcripts(self.chosen.path)
            if one.number in wanted
        }
        return [{**texts[hit.number], "score": hit.score, "terms": list(hit.terms)} for hit in hits]

    def _record(self, one: Transcript, context: str) -> dict[str, Any]:
        return {"id": one.id, "number": one.number, "metadata": dict(one.metadata), "context": context}

    def _hit_line(self, record: Mapping[str, Any]) -> str:
        score = f" {record['score']:.2f}" if "score" in record else ""
        named, context = self._metadata(record["metadata"]), self._quote(record["context"], limit=_LONGEST_HIT)
        return f"[{self._quote(record['id'], limit=40)}]{score}{named}: {context}"

    def _transcript_lines(self, one: Transcript) -> Iterator[str]:
        yield f"[{self._quote(one.id)}]{self._metadata(one.metadata)}"
        for role, content in one.messages:
            yield f"  {role}: {self._quote(content, limit=_LONGEST_TURN) if content else '(empty)'}"

    def _metadata(self, metadata: Mapping[str, str]) -> str:
        shown = [f"{self._quote(name, limit=20)}={self._quote(value, limit=30)}" for name, value in metadata.items()]
        return f" ({', '.join(shown[:5])})" if shown else ""

    def _count_lines(self, counts: Mapping[str, TermCount]) -> Iterator[str]:
        for term, count in counts.items():
            record = count.to_dict()
            line = f"{self._quote(term)}: in {count.inside} of {count.inside_n}"
            if "expected" in record:
                line += (
                    f"; expected by the rest ({count.outside} of {count.outside_n}): {record['expected']:.1f}; "
                    f"difference {record['difference']:+.2f} [{record['ci_low']:+.2f}, {record['ci_high']:+.2f}]"
                )
            yield line

    def _check_size(self, size: int) -> None:
        if size == 0:
            raise ToolError(f"where: no transcript meets it; the fields and some of their values are {self._fields()}")

    def _fields(self) -> str:
        values: dict[str, dict[str, None]] = {}
        for one in read_transcripts(self.chosen.path):
            for name, value in one.metadata.items():
                kept = values.setdefault(name, {})
                if len(kept) < 5:
                    kept[value] = None
        return json.dumps({name: list(some) for name, some in list(values.items())[:12]}) if values else "none"

    def _quote(self, text: str, *, limit: int | None = None) -> str:
        return self.target.quote(text, limit=limit)


def _cost(space: TfIdf | Activations) -> Cost:
    return space.cost if isinstance(space, Activations) else Cost()


def _whole(one: Transcript) -> dict[str, Any]:
    turns = [{"role": role, "content": said} for role, said in one.messages]
    return {"id": one.id, "metadata": dict(one.metadata), "messages": turns}
