"""Ten thousand prompts through one target in a process of its own; prints how the resident set grew, as JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from marple.tools.engine.requests import Capture, Request
from marple.tools.engine.sites import Site
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target

PROMPTS = 10_000


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def prompts(first: int, stop: int) -> Iterator[tuple[int, ...]]:
    """Different prompts of 5 to 16 tokens."""
    for at in range(first, stop):
        number = tuple(262 + at // 80**digit % 80 for digit in range(3))
        yield number + tuple(262 + (at * 7 + step * (at % 11 + 1)) % 80 for step in range(2 + at % 12))


def generate(target: Target, first: int, stop: int) -> int:
    """In calls of 2,500 prompts."""
    done = 0
    for start in range(first, stop, 2500):
        batch = list(prompts(start, min(start + 2500, stop)))
        done += len(target.generate(batch, max_new_tokens=2, temperature=1.0, seeds=range(len(batch))))
    return done


def stream(target: Target, first: int, stop: int) -> int:
    """Every position of both layers, thrown away as it comes."""
    sites = [Site(layer, "resid_post") for layer in range(target.layers)]
    captures = tuple(Capture(site, "all") for site in sites)
    requests = (Request(prompt, captures=captures) for prompt in prompts(first, stop))
    return sum(1 for _ in target.engine.stream(requests))


def main(kind: str) -> None:
    run = {"generate": generate, "stream": stream}[kind]
    target = tiny_target()
    engine = target.engine
    # So small that the caches are full when the measurement begins.
    engine._prefixes._limit = engine._results._limit = 2 << 20
    warm = PROMPTS // 4
    done = run(target, 0, warm)
    before = resident()
    done += run(target, warm, PROMPTS)
    rows = sum(len(lane.rows) + len(lane.waiting) for lane in engine._lanes.values())
    grown = resident() - before
    slots = [lane._slots.bytes for lane in engine._lanes.values()]
    found = {"done": done, "grown": grown, "rows": rows, "singles": len(engine._singles), "slots": max(slots)}
    found["prefixes"] = engine._prefixes.bytes
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
