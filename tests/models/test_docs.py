"""What docs/models.md says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from marple.agent.models import PROVIDERS, load_prices

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_provider_is_listed_with_its_variables():
    for name, provider in PROVIDERS.items():
        [row] = re.findall(rf"^\| `{name}/<model>` .*$", PAGE, re.MULTILINE)
        assert provider.key_variable in row
        assert provider.url_variable in row


def test_the_prices_can_be_read(tmp_path):
    [text] = blocks("yaml")
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_prices(path)["anthropic/some-model"].cache_write == 3.75


def test_the_example_runs():
    [code] = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "It says it is a duck.\n"
