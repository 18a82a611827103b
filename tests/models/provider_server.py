"""A real HTTP server on the loopback that speaks the three providers' streaming APIs from a script.

::

    with ProviderServer([Answer(calls=(Call("chat", {"prompt": "hi"}),)), Answer("done")]) as server:
        model = open_model("openai-chat/x", base_url=server.base_url("openai-chat"))
        ...
        server.requests[0].json["messages"]

A script is a list of items or a function of the request's JSON; an item is an :class:`Answer`, a
:class:`Fault` or :class:`Raw` events.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.models.provider_formats import FORMATS, Answer, Call

__all__ = ["Answer", "Call", "Fault", "ProviderServer", "Raw", "Request"]


@dataclass(frozen=True)
class Fault:
    """An answer with an error status, in the body shape of the API that was asked."""

    status: int
    message: str = "something is wrong"
    code: str = "api_error"
    headers: Mapping[str, str] = field(default_factory=dict)
    in_stream: bool = False
    """Begin a stream with status 200 and report the error as its first event."""
    echo_key: bool = False
    """Put the received Authorization header into the message, as careless gateways do."""


@dataclass(frozen=True)
class Raw:
    """Events as they are, (name, data), for servers that take liberties; data may be text that is not JSON."""

    events: Sequence[tuple[str | None, Any]]


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    json: Any
    seconds: float
    """When it came, on the monotonic clock."""


Item = Answer | Fault | Raw
Script = Sequence[Item] | Callable[[Any], Item]


class ProviderServer:
    """Plays ``script``; ``requests`` holds what came in, ``aborted`` counts clients that went away midway."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._lock = threading.Lock()
        self._played = 0
        self.requests: list[Request] = []
        self.aborted = threading.Semaphore(0)
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> ProviderServer:
        self._thread.start()
        return self

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> ProviderServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def base_url(self, provider: str) -> str:
        return self.url if provider == "anthropic" else f"{self.url}/v1"

    def next_item(self, request: Request) -> Item:
        with self._lock:
            self.requests.append(request)
            if callable(self._script):
                return self._script(request.json)
            if self._played == len(self._script):
                return Fault(500, "the script has ended", headers={"x-should-retry": "false"})
            self._played += 1
            return self._script[self._played - 1]


class _Server(ThreadingHTTPServer):
    owner: ProviderServer
    daemon_threads = False
    block_on_close = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.owner.aborted.release()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # An idle kept-alive connection must not hold up close().
    timeout = 0.5

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        item = self.server.owner.next_item(Request(self.path, headers, body, time.monotonic()))
        if isinstance(item, Fault):
            self._fail(item)
        elif isinstance(item, Raw):
            self._begin()
            for name, data in item.events:
                self._send(name, data)
            self._end()
        else:
            self._stream(item, str(body.get("model")))

    def _fail(self, fault: Fault) -> None:
        message = fault.message
        if fault.echo_key:
            message += f" (got {self.headers.get('authorization')}, {dict(self.headers.items())})"
        error: dict[str, Any] = {"type": fault.code, "code": fault.code, "message": message}
        if self.path == "/v1/messages":
            error = {"type": fault.code, "message": message}
        body: Any = {"type": "error", "error": error}
        if fault.in_stream:
            flat = self.path == "/v1/responses"
            self._begin()
            self._send("error", {**error, "type": "error", "sequence_number": 0} if flat else body)
            self._end()
            return
        data = json.dumps(body).encode()
        self.send_response(fault.status)
        for name, value in {"content-type": "application/json", **fault.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, answer: Answer, model: str) -> None:
        self._begin()
        for number, (name, data) in enumerate(FORMATS[self.path](answer, model)):
            if number == answer.break_after:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if number:
                time.sleep(answer.pause_seconds)
            self._send(name, data)
        self._end()

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("request-id" if self.path == "/v1/messages" else "x-request-id", "req_123")
        self.end_headers()

    def _send(self, name: str | None, data: Any) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        event = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
        self.wfile.write(f"{len(event.encode()):x}\r\n{event}\r\n".encode())
        self.wfile.flush()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
