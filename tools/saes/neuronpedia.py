"""A client of Neuronpedia: what others know of the features of published SAEs. It runs on the host, never in a worker.

Every answer is kept on disk, so that a second run needs no network. Explanations are untrusted text.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from marple.errors import MarpleError, UsageError
from marple.tools.saes.explanations import Explanation

if TYPE_CHECKING:
    import httpx

__all__ = ["DEFAULT_URL", "KEY_VARIABLE", "Neuronpedia", "explanations_of"]

KEY_VARIABLE = "NEURONPEDIA_API_KEY"
DEFAULT_URL = "https://www.neuronpedia.org/api"
_RETRIED = (429, 500, 502, 503, 504)
_LONGEST_WAIT = 60.0
_LEAST_QUERY = 3


@dataclass
class Neuronpedia:
    """The service, with a cache.

    Raises:
        UsageError: by every method: there is no such feature, the request is refused, or the answer is not in the cache
            and ``offline`` is set.
        MarpleError: by every method: the service cannot be reached or keeps failing.
    """

    cache: Path | None = None
    """Folder of answers; None keeps none."""
    offline: bool = False
    """Answer from the cache alone."""
    base_url: str = DEFAULT_URL
    attempts: int = 5
    """Tries of a request that the service refuses for now (429, 5xx) or that does not reach it."""
    timeout: float = 30.0
    """Seconds for one try."""
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)
    """Waits between tries, in seconds."""
    _client: httpx.Client | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def feature(self, model: str, source: str, index: int) -> dict[str, Any]:
        """A feature with its ``explanations``, ``activations`` and logits.

        Args:
            model: such as ``gemma-2-2b``.
            source: layer and set, such as ``20-gemmascope-res-16k``.
            index: of the feature.
        """
        return self._ask("GET", f"/feature/{quote(model, safe='')}/{quote(source, safe='')}/{index}")

    def search_explanations(self, model: str, sources: Sequence[str], query: str, *, offset: int = 0) -> dict[str, Any]:
        """Features of a model whose explanations match, 20 at a time: ``results``, ``hasMore``, ``nextOffset``."""
        body = {"modelId": model, "layers": list(sources), "query": _query(query), "offset": offset}
        return self._ask("POST", "/explanation/search", body)

    def search_all(self, query: str, *, offset: int = 0) -> dict[str, Any]:
        """The same over all models."""
        return self._ask("POST", "/explanation/search-all", {"query": _query(query), "offset": offset})

    def activation(self, model: str, source: str, index: int, text: str) -> dict[str, Any]:
        """Activations of a feature over the tokens of a text of one's own."""
        feature = {"modelId": model, "source": source, "index": str(index)}
        return self._ask("POST", "/activation/new", {"feature": feature, "customText": text})

    # ------------------------------------------------------------------------------- asking

    def _ask(self, method: Literal["GET", "POST"], path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        entry = self._entry(method, path, body)
        if entry is not None and (kept := _read(entry)) is not None:
            return kept
        if self.offline:
            raise UsageError(f"{method} {path} is not in the cache of Neuronpedia, and offline is set")
        answer = self._send(method, path, body)
        if entry is not None:
            entry.parent.mkdir(parents=True, exist_ok=True)
            temporary = entry.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(answer), encoding="utf-8")
            temporary.replace(entry)
        return answer

    def _entry(self, method: str, path: str, body: Mapping[str, Any] | None) -> Path | None:
        if self.cache is None:
            return None
        asked = json.dumps([self.base_url, method, path, body], sort_keys=True)
        return self.cache / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        import httpx

        if self._client is None:
            # Redirects are not followed: the key must not go to another host.
            self._client = httpx.Client(timeout=self.timeout)
        key = os.environ.get(KEY_VARIABLE, "").strip()
        headers = {"x-api-key": key} if key else {}
        failure = ""
        for attempt in range(self.attempts):
            wait: str | None = None
            try:
                response = self._client.request(method, self.base_url + path, json=body, headers=headers)
            except httpx.TransportError as error:
                failure = f"cannot be reached ({type(error).__name__})"
            else:
                if response.status_code not in _RETRIED:
                    return _answer(response, method, path)
                failure, wait = f"answers {response.status_code}", response.headers.get("retry-after")
            if attempt + 1 < self.attempts:
                self.pause(_seconds(wait, attempt))
        raise MarpleError(f"Neuronpedia {failure}, {self.attempts} times for {method} {path}; try again later")


def explanations_of(feature: Mapping[str, Any]) -> tuple[Explanation, ...]:
    """The explanations in a feature as ``Neuronpedia.feature`` gives it."""
    found = []
    for one in feature.get("explanations") or ():
        text = one.get("description") if isinstance(one, dict) else None
        if isinstance(text, str) and text.strip():
            made_by = one.get("explanationModelName") or one.get("typeName") or ""
            found.append(Explanation(text.strip()[:1000], f"neuronpedia {made_by}".strip()[:100]))
    return tuple(found)


def _query(query: str) -> str:
    if len(query.strip()) < _LEAST_QUERY:
        raise UsageError(f"the query {query!r} is too short; Neuronpedia wants {_LEAST_QUERY} characters at least")
    return query.strip()


def _answer(response: httpx.Response, method: str, path: str) -> dict[str, Any]:
    asked = f"{method} {path}"
    if response.status_code == 404:
        raise UsageError(f"Neuronpedia knows nothing under {asked}; check model, source and index")
    if response.status_code in (401, 403):
        raise UsageError(f"Neuronpedia refuses {asked} ({response.status_code}); set a valid key in {KEY_VARIABLE}")
    if response.status_code != 200:
        raise UsageError(f"Neuronpedia refuses {asked} with status {response.status_code}")
    try:
        value = response.json()
    except ValueError as error:
        raise MarpleError(f"Neuronpedia's answer to {asked} is not JSON") from error
    if not isinstance(value, dict):
        raise MarpleError(f"Neuronpedia's answer to {asked} is not a JSON object; there is no such feature")
    return value


def _seconds(wait: str | None, attempt: int) -> float:
    """What the service asks for in whole seconds, else longer after each try."""
    asked = float(wait) if wait is not None and wait.isdigit() else 0.5 * 2.0**attempt
    return min(asked, _LONGEST_WAIT)


def _read(entry: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(entry.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
