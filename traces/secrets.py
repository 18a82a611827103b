"""Keeping API keys out of a trace: the last gate before anything is written."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from marple.traces.event import to_json

__all__ = ["REMOVED", "Scrubber"]

REMOVED = "[key removed]"

SHORTEST = 8
"""A value shorter than this is a local server's placeholder, and removing it would blank ordinary words."""


class Scrubber:
    """Replaces every occurrence of the given secret values by ``[key removed]``."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        needles = {form for secret in secrets if len(secret) >= SHORTEST for form in _written_forms(secret)}
        # The longest first, so that a key which contains another leaves no rest behind.
        self._needles = sorted(needles, key=len, reverse=True)

    def text(self, text: str) -> str:
        """``text`` without the secrets."""
        for needle in self._needles:
            text = text.replace(needle, REMOVED)
        return text

    def data(self, data: bytes) -> bytes:
        """``data`` without the secrets in their UTF-8 form."""
        for needle in self._needles:
            data = data.replace(needle.encode(errors="surrogatepass"), REMOVED.encode())
        return data

    def json(self, text: str) -> str:
        """The JSON ``text`` without the secrets in any string or key of it; still valid JSON."""
        # Replaced inside the strings, not in the line: a secret like `"type"` must not break the syntax.
        if not any(needle in text for needle in self._needles):
            return text
        return to_json(self._walk(json.loads(text)))

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._walk(item) for key, item in value.items()}
        return value


def _written_forms(secret: str) -> set[str]:
    # JSON inside JSON (a tool call's raw arguments) escapes twice.
    forms = {secret}
    for _ in range(2):
        forms |= {json.dumps(form, ensure_ascii=ascii_)[1:-1] for form in forms for ascii_ in (True, False)}
    return forms
