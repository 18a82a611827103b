"""What a page shows of a file: a link to it that ends a paragraph's first line, and the code below."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.conftest import ROOT

SHOWN = re.compile(r"^\[`[\w.]+`\]\((examples/[\w.]+)\)[^\n]*:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown_in(page: Path) -> dict[str, str]:
    """The code that a page shows, by the file that it is said to be from."""
    return dict(SHOWN.findall(page.read_text()))


def fill(page: Path) -> None:
    """Write the files' content into the page."""
    text = page.read_text()
    for match in reversed(list(SHOWN.finditer(text))):
        text = text[: match.start(2)] + (ROOT / "docs" / match[1]).read_text() + text[match.end(2) :]
    page.write_text(text)
