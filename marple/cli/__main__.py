"""``python -m marple.cli``."""

from marple.cli import main

main()
