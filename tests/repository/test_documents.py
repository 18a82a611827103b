"""The documents point at things that exist, and the repository speaks of the project alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)

# Put together from pieces, so that this file does not hold them.
FORBIDDEN = [
    re.compile(r"(?<![\w.~-])/" + "work/"),
    re.compile(r"(?<![\w.~-])/" + "root/"),
    re.compile(r"pypi\." + "org"),
    re.compile(r"pythonhosted\." + "org"),
    re.compile(r"download\.pytorch\." + "org"),
    re.compile(r"(deb|security)\.debian\." + "org"),
    re.compile(r"registry\.npmjs\." + "org"),
    re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + "X)\\b"),
]


def headings(text: str) -> set[str]:
    """The anchors of a Markdown page, as code hosts make them."""
    found = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in headings(target.read_text())):
            broken.append(link)
    return broken


def test_every_relative_link_resolves(root: Path, files: list[Path]) -> None:
    pages = [path for path in files if path.suffix == ".md"]
    assert Path("README.md") in pages
    assert {str(page): broken for page in pages if (broken := broken_links(root / page))} == {}


def test_the_check_of_links_finds_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading, here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Top\n[a](other.md#a-heading-here) [b](#top) [c](https://example.org/x)\n```\n[code](no.md)\n```\n"
    )
    assert broken_links(page) == []
    page.write_text("[a](none.md) ![b](plot.png) [c](other.md#no) [d](#nowhere)")
    assert broken_links(page) == ["none.md", "plot.png", "other.md#no", "#nowhere"]


def test_the_repository_speaks_of_the_project_alone(root: Path, files: list[Path]) -> None:
    found = []
    for path in files:
        try:
            text = (root / path).read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            found += [f"{path}:{number}: {match[0]}" for pattern in FORBIDDEN if (match := pattern.search(line))]
    assert found == []


@pytest.mark.parametrize("target", ["help", "setup", "demo", "test", "check", "docs", "bench", "clean"])
def test_make_knows_the_target(root: Path, target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=root, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"make {target}" in subprocess.run(["make"], cwd=root, capture_output=True, text=True, check=True).stdout


def test_the_readme_begins_with_demo_and_test(root: Path) -> None:
    block = re.search(r"^```\w*\n(.*?)^```", (root / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block, "the README has no code block"
    commands = re.findall(r"^\$?\s*(make \w+)", block[1], re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


def test_the_licence_is_the_apache_licence(root: Path) -> None:
    text = (root / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_installed_requirement_is_pinned(root: Path) -> None:
    pins = [line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = {re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins}
    required = re.findall(r'^    "([\w.-]+)(?:\[[\w,]+\])?[>=<",]', (root / "pyproject.toml").read_text(), re.MULTILINE)
    wanted = {re.sub(r"[-_.]+", "-", name).lower() for name in required if not name.startswith("marple")}
    assert {"torch", "pytest"} <= wanted
    assert sorted(wanted - names) == []
