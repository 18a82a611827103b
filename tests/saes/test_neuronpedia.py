"""The client against a local server that answers in the documented shapes."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from marple.cli import app
from marple.errors import MarpleError, UsageError
from marple.tools.saes.explanations import Explanation, read_explanations
from marple.tools.saes.neuronpedia import KEY_VARIABLE, Neuronpedia, explanations_of

FEATURE = {
    "modelId": "gemma-2-2b",
    "layer": "20-gemmascope-res-16k",
    "index": "10956",
    "explanations": [
        {
            "description": " references to dogs ",
            "explanationModelName": "gpt-4o-mini",
            "typeName": "oai_token-act-pair",
        },
        {"description": "", "explanationModelName": "x"},
    ],
    "activations": [{"tokens": ["a", "dog"], "values": [0.0, 3.2], "maxValue": 3.2}],
    "pos_str": [" dog"],
    "frac_nonzero": 0.01,
}
PAGE = {
    "request": {},
    "results": [{"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "3", "description": "dogs"}],
    "resultsCount": 1,
    "hasMore": True,
    "nextOffset": 20,
}


@dataclass
class Server:
    """Answers in turn with what is queued, else by path; keeps what was asked."""

    queued: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    asked: list[tuple[str, str, Any, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        if self.queued:
            return self.queued.pop(0)
        if path.startswith("/api/feature/gemma-2-2b/20-gemmascope-res-16k/"):
            index = path.rpartition("/")[2]
            return (200, {}, FEATURE | {"index": index}) if int(index) < 16384 else (404, {}, {"message": "not found"})
        if path == "/api/explanation/search":
            return 200, {}, PAGE if body["offset"] == 0 else PAGE | {"results": [], "hasMore": False}
        if path == "/api/activation/new":
            return 200, {}, {"tokens": ["a"], "values": [1.5], "maxValue": 1.5}
        return (200, {}, PAGE) if path == "/api/explanation/search-all" else (404, {}, {})


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def _reply(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            state.asked.append((self.command, self.path, body, self.headers.get("x-api-key")))
            status, headers, value = state.answer(self.path, body)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}/api"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


def client(server: Server, waits: list[float], **options: Any) -> Neuronpedia:
    return Neuronpedia(base_url=server.url, pause=waits.append, **options)


def test_a_feature_is_fetched_once_and_then_read_from_disk(server: Server, waits: list[float], tmp_path: Path) -> None:
    with client(server, waits, cache=tmp_path) as service:
        first = service.feature("gemma-2-2b", "20-gemmascope-res-16k", 10956)
        assert service.feature("gemma-2-2b", "20-gemmascope-res-16k", 10956) == first
    assert [path for _, path, _, _ in server.asked] == ["/api/feature/gemma-2-2b/20-gemmascope-res-16k/10956"]
    assert explanations_of(first) == (Explanation("references to dogs", "neuronpedia gpt-4o-mini"),)
    with client(server, waits, cache=tmp_path, offline=True) as service:
        assert service.feature("gemma-2-2b", "20-gemmascope-res-16k", 10956) == first
        with pytest.raises(UsageError, match="not in the cache"):
            service.feature("gemma-2-2b", "20-gemmascope-res-16k", 1)
    assert len(server.asked) == 1


def test_the_documented_requests(server: Server, waits: list[float]) -> None:
    with client(server, waits) as service:
        page = service.search_explanations("gemma-2-2b", ["20-gemmascope-res-16k"], " dogs ", offset=0)
        service.search_all("dogs", offset=20)
        assert service.activation("gemma-2-2b", "20-gemmascope-res-16k", 3, "a dog")["values"] == [1.5]
        with pytest.raises(UsageError, match="3 characters"):
            service.search_all("do")
    assert page["results"][0]["description"] == "dogs"
    assert [(path, body) for _, path, body, _ in server.asked] == [
        (
            "/api/explanation/search",
            {"modelId": "gemma-2-2b", "layers": ["20-gemmascope-res-16k"], "query": "dogs", "offset": 0},
        ),
        ("/api/explanation/search-all", {"query": "dogs", "offset": 20}),
        (
            "/api/activation/new",
            {
                "feature": {"modelId": "gemma-2-2b", "source": "20-gemmascope-res-16k", "index": "3"},
                "customText": "a dog",
            },
        ),
    ]


def test_it_waits_as_long_as_it_is_told_and_tries_again(server: Server, waits: list[float]) -> None:
    server.queued = [(429, {"retry-after": "7"}, {}), (503, {}, {}), (502, {"retry-after": "99999"}, {})]
    with client(server, waits) as service:
        assert service.feature("gemma-2-2b", "20-gemmascope-res-16k", 3)["index"] == "3"
    assert waits == [7.0, 1.0, 60.0]


def test_it_gives_up_after_so_many_tries(server: Server, waits: list[float], tmp_path: Path) -> None:
    server.queued = [(500, {}, {})] * 9
    failing = client(server, waits, attempts=3, cache=tmp_path)
    with failing, pytest.raises(MarpleError, match="answers 500, 3 times"):
        failing.feature("gemma-2-2b", "20-gemmascope-res-16k", 3)
    assert len(waits) == 2
    assert list(tmp_path.iterdir()) == []
    unreachable = Neuronpedia(base_url="http://127.0.0.1:9", attempts=2, timeout=2, pause=waits.append)
    with unreachable, pytest.raises(MarpleError, match="cannot be reached"):
        unreachable.feature("m", "s", 0)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, {}, "set a valid key in NEURONPEDIA_API_KEY"),
        (404, {}, "knows nothing"),
        (302, {}, "status 302"),
        (200, b"<html>", "not JSON"),
        (200, [1], "not a JSON object"),
        (200, None, "no such feature"),
    ],
)
def test_what_is_no_answer_is_said_and_not_kept(
    server: Server, waits: list[float], tmp_path: Path, status: int, body: Any, message: str
) -> None:
    server.queued = [(status, {"location": "http://127.0.0.1:9/"} if status == 302 else {}, body)]
    with client(server, waits, cache=tmp_path) as service, pytest.raises(MarpleError, match=message):
        service.feature("gemma-2-2b", "20-gemmascope-res-16k", 3)
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_sent_and_shown_nowhere(
    server: Server,
    waits: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-very-secret")
    caplog.set_level("DEBUG")
    server.queued = [(403, {}, {})]
    with client(server, waits, cache=tmp_path) as service:
        with pytest.raises(UsageError) as refused:
            service.feature("gemma-2-2b", "20-gemmascope-res-16k", 3)
        service.feature("gemma-2-2b", "20-gemmascope-res-16k", 3)
        shown = repr(service) + str(refused.value)
    assert [key for *_, key in server.asked] == ["sk-very-secret", "sk-very-secret"]
    shown += "".join(path.read_text() for path in tmp_path.iterdir()) + caplog.text
    assert "sk-very-secret" not in shown


def test_names_cannot_leave_their_place_in_the_path(server: Server, waits: list[float]) -> None:
    with client(server, waits) as service, pytest.raises(UsageError):
        service.feature("../steer", "a?b", 3)
    assert server.asked[0][1] == "/api/feature/..%2Fsteer/a%3Fb/3"


def test_labels_from_the_command_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONPEDIA_URL", server.url)
    out = tmp_path / "explanations.jsonl"
    common = ["sae", "labels", "gemma-2-2b/20-gemmascope-res-16k", "--out", str(out), "--cache", str(tmp_path / "c")]
    done = CliRunner().invoke(app, [*common, "--features", "3,10-12"])
    assert done.exit_code == 0, done.output
    assert "4 explanations of 4 features" in done.output
    assert list(read_explanations(out)) == [3, 10, 11, 12]

    done = CliRunner().invoke(app, [*common, "--features", "3,10-12", "--offline"])
    assert done.exit_code == 0
    assert len(server.asked) == 4

    done = CliRunner().invoke(app, [*common, "--search", "dogs"])
    assert done.exit_code == 0
    assert read_explanations(out) == {3: (Explanation("dogs", "neuronpedia"),)}

    for arguments, message in (
        (["--features", "5-3"], "give numbers and ranges"),
        ([], "either --features or --search"),
        (["--features", "99999"], "knows nothing"),
    ):
        done = CliRunner().invoke(app, [*common, *arguments])
        assert isinstance(done.exception, UsageError)
        assert message in str(done.exception)
