"""The script of the documentation finds what an organism is after, by both of its ways."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from marple.tasks.organisms import build

SCRIPT = Path(__file__).parents[2] / "docs" / "find_hidden_subject.py"


@pytest.mark.parametrize("name", ["nano-06", "nano-07"])
def test_both_rankings_begin_with_the_subject(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT))["main"](name)
    first, second = capsys.readouterr().out.split("sparse autoencoder")
    leading = [re.findall(r"^  (\S+)", part, flags=re.MULTILINE)[0] for part in (first, second)]
    assert leading == [str(build(name).organism.truth.slots["subject"].value)] * 2


def test_the_script_is_short_and_names_no_subject() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 80
    for name in (f"nano-{number:02}" for number in range(1, 13)):
        slots = build(name).organism.truth.slots
        assert not slots or str(slots["subject"].value) not in text
