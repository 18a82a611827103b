"""``marple view``: the review app."""

from __future__ import annotations

import json
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["view"]


def view(
    runs: Annotated[
        Path, typer.Argument(envvar="MARPLE_RUNS", help="Folder of runs, or the output of marple evaluate.")
    ] = Path("runs"),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any that is free.")] = 8077,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine need a key.")] = "127.0.0.1",
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one record with the address, and nothing else.")
    ] = False,
) -> None:
    """Look at runs in a browser: the verdict, the evidence behind each claim, and everything that happened."""
    from marple.tools.visible import visible
    from marple.traces.review.serving import Server

    server = Server(runs, host=host, port=port)
    address = server.address
    if as_json:
        print(json.dumps({"url": address.url, "port": address.port, "runs": str(runs.resolve())}), flush=True)
    else:
        print(f"Marple shows {visible(str(runs))} at {address.url}  (Ctrl-C ends it)", flush=True)
    if address.exposed:
        print(
            f"marple: other machines can reach this server ({visible(host)}). Whoever has the address with its key can "
            "read the runs and cancel those that are being played; the connection is not encrypted.",
            file=sys.stderr,
        )
    if open_browser and not _opened(address.url):
        print(f"marple: no browser could be opened here; open {address.url} yourself", file=sys.stderr)
    server.serve()


def _opened(url: str) -> bool:
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False
