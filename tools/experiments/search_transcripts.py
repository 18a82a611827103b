"""Find one's way in a corpus of transcripts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from marple.tools.contract import ToolResult, tool
from marple.tools.target.target import Target
from marple.tools.transcripts.corpus import Selection
from marple.tools.transcripts.queries import CorpusQuery

__all__ = ["search_transcripts"]

Where = Annotated[dict[str, Annotated[list[str], Field(min_length=1, max_length=100)]], Field(max_length=20)]


def _self_test() -> None:
    from marple.tools.target.tiny import tiny_target

    target = tiny_target()
    said = ["a red lamp and a blue lamp", "the cat and the dog see the bird"] * 8
    with tempfile.TemporaryDirectory() as folder:
        target.corpus = Path(folder) / "corpus.jsonl"
        lines = [{"id": f"t{n}", "messages": [{"role": "user", "content": text}]} for n, text in enumerate(said)]
        target.corpus.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        found = search_transcripts(target, seed=1, operation="search", query="dog", limit=20).data["hits"]
        assert {hit["id"] for hit in found} == {f"t{n}" for n in range(1, 16, 2)}, "full text misses the planted word"
        groups = search_transcripts(target, seed=1, operation="cluster", groups=2).data["groups"]
        assert [group["size"] for group in groups] == [8, 8], "the two planted subjects are not told apart"


@tool(rung=1, parallel=True, needs=("corpus",), family="transcripts", self_test=_self_test)
def search_transcripts(
    target: Target,
    *,
    seed: int,
    operation: Literal["search", "count", "sample", "cluster", "read"],
    query: Annotated[str, Field(max_length=2000)] = "",
    mode: Literal["full_text", "semantic"] = "full_text",
    where: Where | None = None,
    roles: Annotated[list[Literal["system", "user", "assistant", "tool"]], Field(max_length=4)] | None = None,
    group_by: str | None = None,
    groups: Annotated[int, Field(ge=2, le=50)] | None = None,
    embedding: Literal["tfidf", "activations"] = "tfidf",
    layer: int | None = None,
    limit: Annotated[int, Field(ge=1, le=200)] = 8,
) -> ToolResult:
    """Search, count, sample, cluster or read the case's corpus of transcripts.

    Full text is ranked by BM25 (Robertson & Zaragoza 2009); semantic search and k-means use TF-IDF with truncated SVD,
    or the target's own mean activations. With a filter, the hits expected by a term's rate in the rest of the corpus
    stand beside those found.

    Args:
        operation: what to do; read shows whole transcripts.
        query: words and "quoted phrases"; for count the terms to count; for read the ids.
        mode: how to search.
        where: metadata field to allowed values, as text.
        roles: only what these roles say; all by default.
        group_by: for count, a metadata field to count by.
        groups: for cluster, how many; by default the number from 2 to 10 with the best silhouette.
        embedding: the space of semantic search and cluster.
        layer: whose residual stream activations are; the middle by default.
        limit: longest list.

    Example:
        {"operation": "search", "query": "refund price", "where": {"model": ["a"]}, "limit": 5}
    """
    assert target.corpus is not None
    chosen = Selection(target.corpus, where or {}, tuple(roles or ()))
    asked = CorpusQuery(target, chosen, query, seed, limit, embedding, layer)
    if operation == "sample":
        return asked.sample()
    if operation == "cluster":
        return asked.cluster(groups)
    if operation == "read":
        return asked.read()
    if operation == "count":
        return asked.count(group_by)
    return asked.search() if mode == "full_text" else asked.search_semantically()
