"""Let coverage guide what is thrown at the host's parser and schemas; needs ``pip install atheris``.

    python benchmarks/fuzz_atheris.py [CORPUS_DIRECTORY] [-max_total_time=SECONDS] [libFuzzer's other options]

It stops at the first input that raises anything but ``WireError``, or that is read otherwise than Python's own parser
reads it. ``fuzz_frames.py`` needs nothing and is what the figures come from.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
atheris = importlib.import_module("atheris")

with atheris.instrument_imports(include=["marple", "json", "benchmarks"]):
    from benchmarks.fuzz_frames import BODIES, MORSELS, judge, raw


def one_input(data: bytes) -> None:
    """The first byte says whether the rest is a body or a stream, and where it is cut."""
    if data:
        stream = raw(data[1:]) if data[0] & 1 else data[1:]
        judge(stream, [len(stream) * (data[0] >> 1) // 127])


def main() -> None:
    folders = [Path(one) for one in sys.argv[1:] if not one.startswith("-")]
    if folders:
        folders[0].mkdir(parents=True, exist_ok=True)
        for number, body in enumerate((*BODIES, *MORSELS)):
            (folders[0] / f"seed-{number}").write_bytes(b"\x01" + body)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
