"""Random requests: every kind, every edit, prompts that share beginnings or are longer than a chunk."""

from __future__ import annotations

from hypothesis import strategies as st

from marple.tools.engine.interventions import Intervention, Op
from marple.tools.engine.requests import Capture, Request, Sampling
from marple.tools.engine.sites import SITE_NAMES, Site
from tests.engine.small import LAYERS, VOCAB, vector

TOKENS = st.integers(2, VOCAB - 1)
SEEDS = st.integers(0, 2**31)
OPS: tuple[Op, ...] = ("add", "norm_add", "ablate", "clamp", "replace")
SITES = st.builds(Site, st.integers(0, LAYERS - 1), st.sampled_from(SITE_NAMES))
_STEMS = [tuple((7 * at * at + 3 * at + stem) % (VOCAB - 2) + 2 for at in range(44)) for stem in range(2)]

PROMPTS = st.one_of(
    st.lists(TOKENS, min_size=1, max_size=10).map(tuple),
    st.builds(
        lambda stem, length, tail: stem[:length] + tuple(tail),
        st.sampled_from(_STEMS),
        st.sampled_from([16, 20, 33, 44]),
        st.lists(TOKENS, max_size=6),
    ),
)
"""Short ones, and ones that share beginnings and are longer than a chunk."""


@st.composite
def interventions(draw: st.DrawFn, length: int) -> Intervention:
    """An edit for a prompt of ``length`` tokens."""
    places = st.lists(st.integers(-length, length - 1), min_size=1, max_size=4)
    positions = draw(st.none() | places.map(lambda them: tuple({at % length: at for at in them}.values())))
    rows = len(positions) if positions is not None and draw(st.booleans()) else None
    start = draw(st.integers(0, 3))
    return Intervention(
        site=draw(SITES),
        vector=vector(draw(SEEDS), rows=rows),
        op=draw(st.sampled_from(OPS)),
        scale=draw(st.sampled_from([-1.5, -0.4, 0.3, 1.0, 2.5])),
        phases=draw(st.sampled_from([("prompt",), ("generation",), ("prompt", "generation")])),
        positions=positions,
        exclude_positions=draw(st.just(()) | places.map(tuple)),
        tokens=draw(st.none() | st.lists(TOKENS, min_size=1, max_size=30).map(tuple)),
        exclude_tokens=draw(st.just(()) | st.lists(TOKENS, max_size=12).map(tuple)),
        generation_window=draw(st.none() | st.just((start, None)) | st.just((start, start + 2))),
    )


@st.composite
def captures(draw: st.DrawFn, length: int, *, generated: bool) -> Capture:
    """A capture for a prompt of ``length`` tokens."""
    chosen = st.lists(st.integers(-length, length - 1), min_size=1, max_size=4).map(tuple)
    words = ["last", "generated"] if generated else ["last", "all"]
    return Capture(
        draw(SITES),
        draw(st.sampled_from(words) | chosen),  # type: ignore[arg-type]
        mean=draw(st.booleans()),
        project=vector(draw(SEEDS), rows=2) if draw(st.integers(0, 3)) == 0 else None,
        before_edits=draw(st.booleans()),
    )


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request of any kind."""
    prompt = draw(PROMPTS)
    size = len(prompt)
    edits = tuple(draw(st.lists(interventions(size), max_size=3)))
    kind = draw(st.sampled_from(["sample", "score", "read", "logits"]))
    if kind == "sample":
        sampling = Sampling(
            draw(st.integers(1, 7)),
            draw(st.sampled_from([0.0, 0.6, 1.0, 1.5])),
            draw(st.sampled_from([1.0, 0.7])),
            draw(SEEDS),
        )
        held = tuple(draw(st.lists(captures(size, generated=True), max_size=2))) if draw(st.booleans()) else ()
        # The mean over nothing is not a number.
        held = tuple(one for one in held if not (one.mean and one.positions == "generated"))
        return Request(prompt, (), sampling, edits, held, logprobs=draw(st.booleans()))
    rest = tuple(draw(st.lists(TOKENS, min_size=kind == "score", max_size=5))) if kind != "logits" else ()
    held = tuple(draw(st.lists(captures(size, generated=False), min_size=kind == "read", max_size=3)))
    return Request(
        prompt, rest, None, edits, held, logprobs=kind == "score", logits=kind == "logits" or draw(st.booleans())
    )


def mixed(most: int = 7) -> st.SearchStrategy[list[Request]]:
    """A queue of requests, some of them twice."""
    return st.lists(requests(), min_size=1, max_size=most).flatmap(
        lambda them: st.permutations([*them, *them[:1]]) if len(them) > 2 else st.just(them)
    )
