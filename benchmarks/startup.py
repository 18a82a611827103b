"""How long Marple takes to start: processes from nothing to done, shortest and median of ten."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import marple": [sys.executable, "-c", "import marple"],
    "import marple.traces": [sys.executable, "-c", "import marple.traces"],
    "marple --help": [str(Path(sys.executable).with_name("marple")), "--help"],
}


def times(command: list[str], *, repeats: int = 10) -> list[float]:
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        spent.append(time.perf_counter() - start)
    return spent


def main() -> None:
    table = Table("command", "shortest, ms", "median, ms", title="Starting")
    for name, command in COMMANDS.items():
        spent = times(command)
        table.add_row(name, f"{min(spent) * 1e3:.0f}", f"{statistics.median(spent) * 1e3:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
