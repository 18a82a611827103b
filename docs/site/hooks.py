"""What the site has beside the files of docs/: the pages of the top folder, and the reference, made at build time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cli_pages import cli_page
from python_pages import python_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
TOP_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
"""Pages of the top folder, and where they are on the site."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of docs/results/, which are written by evaluations; what has no title is a part of a page."""
    pages = sorted((ROOT / "docs" / "results").glob("*.md"))
    listed = [f"results/{page.name}" for page in pages if page.read_text("utf-8").startswith("# ")]
    if listed and config.nav is not None:
        config.nav.insert(-2, {"Results": listed})
    return config


def as_on_the_site(markdown: str) -> str:
    """Links of a top page, as they are from the top of the site."""
    for name, place in TOP_PAGES.items():
        markdown = markdown.replace(f"]({name}", f"]({place}")
    return markdown.replace("](docs/", "](")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/."""
    from mkdocs.structure.files import File

    made = {place: as_on_the_site((ROOT / name).read_text("utf-8")) for name, place in TOP_PAGES.items()}
    made |= {"reference/cli.md": cli_page(), "reference/python.md": python_page()}
    for name in ("marple.css", "marple.svg"):
        made[f"assets/{name}"] = (ROOT / "docs" / "site" / name).read_text("utf-8")
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page of docs/ that points to one of the top folder finds it beside itself."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    for name, place in TOP_PAGES.items():
        markdown = re.sub(rf"\]\(\.\./{re.escape(name)}", f"]({place}", markdown)
    return markdown
