"""Who may talk to the server, what its answers allow, and how it starts and ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from marple.errors import UsageError
from marple.traces import RunFolder, lock
from marple.traces.control import wanted
from marple.traces.labels import read_labels
from marple.traces.review.serving import Server
from tests.review.conftest import serving
from tests.review.made_runs import PNG, finished_run, long_run, spec, written_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    finished_run(root, "one")
    long_run(root, "left", 10)
    return root


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Server]:
    with serving(runs) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address.url, timeout=30, trust_env=False) as opened:
        yield opened


def token(client: httpx.Client) -> str:
    match = re.search(r'name="token" content="([^"]+)"', client.get("/").text)
    assert match
    return match[1]


@pytest.mark.parametrize(
    "path", ["/", "/run/one", "/run/one/E4", "/search?q=x", "/none", "/static/app.js", "/runs.json"]
)
def test_every_answer_forbids_what_a_page_needs_not(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize(
    "path", ["/", "/run/one", "/run/one/E4", "/run/one/E8", "/search?q=velora", "/compare?a=one&b=left"]
)
def test_no_page_holds_a_script_a_style_or_an_address_elsewhere(client: httpx.Client, path: str) -> None:
    page = client.get(path).text
    assert re.findall(r"<script(?![^>]*\bsrc=\"/static/)", page) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", page) == []
    assert re.findall(r"(?:src|href|action)=\"(?:https?:)?//", page) == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost.evil:80"])
def test_another_name_for_this_server_is_refused(client: httpx.Client, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code in (400, 421)


def test_its_own_names_are_not(client: httpx.Client, server: Server) -> None:
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert client.get("/", headers={"host": f"{name}:{server.address.port}"}).status_code == 200


@pytest.mark.parametrize("path", ["/run/left/control", "/run/one/labels", "/run/one/labels/x/remove"])
def test_reading_changes_nothing(client: httpx.Client, runs: Path, path: str) -> None:
    before = {file: file.read_bytes() for file in runs.rglob("*.json*") if file.is_file()}
    assert client.get(f"{path}?wanted=cancel&label=x").status_code in (404, 405)
    assert {file: file.read_bytes() for file in runs.rglob("*.json*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("headers", "with_token"),
    [
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://["}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({}, False),
    ],
)
def test_a_change_from_elsewhere_is_refused(
    client: httpx.Client, runs: Path, headers: dict[str, str], with_token: bool
) -> None:
    form = {"label": "believe", "wanted": "cancel", "token": token(client) if with_token else "guessed"}
    for path in ("/run/one/labels", "/run/left/control"):
        assert client.post(path, data=form, headers=headers).status_code == 403
    assert read_labels(runs / "one") == []
    assert wanted(runs / "left") == "go"


def test_a_change_from_its_own_page_is_made(client: httpx.Client, runs: Path, server: Server) -> None:
    own = {"origin": server.address.url.rstrip("/")}
    form = {"token": token(client), "label": "doubt", "comment": "why\nso", "event": "E4", "by": "ann"}
    answer = client.post("/run/one/labels", data=form, headers=own)
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/one#E4")
    [label] = read_labels(runs / "one")
    assert (label.label, label.comment, label.event, label.by) == ("doubt", "why\nso", "E4", "ann")
    rows = [json.loads(line) for line in client.get("/labels.jsonl").text.splitlines()]
    assert [(row["run"], row["case"], row["label"], row["event"]) for row in rows] == [
        ("one", "hidden-goal/nano-09", "doubt", "E4")
    ]
    assert "doubt" in client.get("/labels.csv").text
    client.post(f"/run/one/labels/{label.id}/remove", data={"token": token(client)})
    assert read_labels(runs / "one") == []


def test_words_for_a_run_that_was_deleted_are_given_back(client: httpx.Client, runs: Path) -> None:
    finished_run(runs, "gone")
    assert client.get("/run/gone").status_code == 200
    shutil.rmtree(runs / "gone")
    answer = client.post("/run/gone/labels", data={"token": token(client), "comment": "an hour of thought"})
    assert answer.status_code == 409
    assert "an hour of thought" in answer.text
    assert "gone" in client.get("/run/gone").text
    stale = client.post("/run/one/labels", data={"token": "of yesterday", "comment": "an hour of thought"})
    assert stale.status_code == 403
    assert "an hour of thought" in stale.text


def test_a_labelled_run_that_was_deleted_takes_its_labels_along(client: httpx.Client, runs: Path) -> None:
    finished_run(runs, "labelled")
    client.post("/run/labelled/labels", data={"token": token(client), "label": "doubt", "comment": "xylophone"})
    assert "xylophone" in client.get("/labels.jsonl").text
    assert "/run/labelled" in client.get("/?label=doubt").text
    shutil.rmtree(runs / "labelled")
    assert "xylophone" not in client.get("/labels.jsonl").text
    listed = client.get("/?label=doubt")
    assert (listed.status_code, "/run/labelled" in listed.text) == (200, False)
    assert "/run/labelled" not in client.get("/search?q=xylophone").text
    for path in ("/run/labelled", "/run/labelled/E4", "/run/labelled/E4/body", "/compare?a=one&b=labelled"):
        assert client.get(path).status_code == 404


def test_a_run_is_read_while_a_line_of_it_is_being_written(client: httpx.Client, runs: Path) -> None:
    path = written_run(runs, "growing", lines=[{"payload": {"a": "first"}}])
    line = json.dumps({"id": "E3", "ts": 1.0, "type": "note", "role": "harness", "span": None, "parent": None,
                       "seconds": None, "payload": {"text": "second"}}).encode() + b"\n"  # fmt: skip
    lock.acquire(path / "lock")
    with (path / "events.jsonl").open("ab", buffering=0) as file:
        for part in (line[:40], line[40:]):
            assert client.get("/run/growing/E3").status_code == 404
            assert client.get("/run/growing").status_code == 200
            assert client.get("/?status=running").text.count("/run/growing") == 1
            file.write(part)
    assert "second" in client.get("/run/growing/E3").text
    lock.release(path / "lock")
    assert "/run/growing" in client.get("/?status=interrupted").text


def test_a_formula_in_a_comment_is_text_in_the_csv(client: httpx.Client, runs: Path) -> None:
    client.post("/run/one/labels", data={"token": token(client), "comment": "=HYPERLINK(1)", "label": "x"})
    assert ",=HYPERLINK" not in client.get("/labels.csv").text
    [label] = read_labels(runs / "one")
    client.post(f"/run/one/labels/{label.id}/remove", data={"token": token(client)})


@pytest.mark.parametrize(
    "path",
    ["/run/%2e%2e", "/run/%2e%2e%2f%2e%2e%2fetc", "/run/.index.sqlite", "/run/one/blob/..%2frun.json", "/run/one/E99",
     "/run/one/blob/" + "0" * 64, "/static/..%2fapp.py", "/static/../app.py", "/run/none", "/run/%00", "/labels.xlsx",
     "/labels.csv%0d%0aset-cookie:%20a=b"],
)  # fmt: skip
def test_nothing_outside_the_runs_is_given_out(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 405), answer.text
    assert "schema_version" not in answer.text


def test_a_plot_is_shown_and_nothing_else_is(client: httpx.Client, runs: Path) -> None:
    page = b"<script>alert(1)</script>"
    with RunFolder.create(runs, "blobs", spec()) as run:
        run.append("run_start", {})
        kinds = ("image/png", "text/html", "image/svg+xml")
        refs = [run.put_blob(PNG, "image/png")]
        refs += [run.put_blob(page + b" " * n, kind) for n, kind in enumerate(kinds)]
    answers = [client.get(f"/run/blobs/blob/{ref[7:]}") for ref in refs]
    assert (answers[0].headers["content-type"], answers[0].content) == ("image/png", PNG)
    for answer in answers[1:]:
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")


def test_pausing_and_cancelling_ask_the_run(client: httpx.Client, runs: Path) -> None:
    form = {"token": token(client)}
    assert client.post("/run/left/control", data={**form, "wanted": "pause"}).status_code == 303
    assert wanted(runs / "left") == "pause"
    assert client.post("/run/left/control", data={**form, "wanted": "explode"}).status_code == 400
    assert client.post("/run/one/control", data={**form, "wanted": "cancel"}).status_code == 409
    client.post("/run/left/control", data={**form, "wanted": "cancel"})
    assert wanted(runs / "left") == "cancel"
    assert client.post("/run/left/control", data={**form, "wanted": "go"}).status_code == 409


def test_an_address_that_others_reach_asks_for_the_key(runs: Path) -> None:
    with serving(runs, host="0.0.0.0") as exposed:
        assert exposed.address.exposed
        key = exposed.address.url.partition("?key=")[2]
        assert len(key) >= 20
        with httpx.Client(base_url=f"http://127.0.0.1:{exposed.address.port}", trust_env=False) as client:
            for refused in (
                client.get("/"),
                client.get("/run/one"),
                client.get("/?key=wrong"),
                client.get("/static/app.js"),
            ):
                assert refused.status_code == 401
            let_in = client.get(f"/run/one?key={key}&from=1")
            assert (let_in.status_code, let_in.headers["location"]) == (303, "/run/one?from=1")
            assert "httponly" in let_in.headers["set-cookie"].lower()
            assert client.get("/run/one").status_code == 200


def test_a_broken_run_says_what_is_wrong(client: httpx.Client, runs: Path) -> None:
    (runs / "folder").mkdir()
    written_run(runs, "newer", lines=[], schema_version=9)
    written_run(runs, "torn", lines=[{}], tail=b'{"id": "E3", "ty')
    bad = written_run(runs, "bad", lines=[{"payload": {"a": "kept"}}, {}, {}])
    lines = (bad / "events.jsonl").read_bytes().split(b"\n")
    (bad / "events.jsonl").write_bytes(b"\n".join([*lines[:2], b"{nonsense", *lines[3:]]))
    folder, newer = client.get("/run/folder"), client.get("/run/newer")
    assert (folder.status_code, newer.status_code) == (422, 422)
    assert "not a run folder" in folder.text
    assert "upgrade to read it" in newer.text
    assert "line 3 of events.jsonl is incomplete" in client.get("/run/torn").text.replace("Line", "line")
    page = client.get("/run/bad").text
    assert "cannot be read beyond E2" in page
    assert 'id="E2"' in page
    listed = client.get("/").text
    assert "newer Marple" in listed
    assert "has no run.json" in listed


@pytest.mark.parametrize("result", [None, {"status": "error"}, {"usage": {"turns": "x"}, "scores": [], "answer": 3}])
def test_a_run_that_says_little_is_shown(client: httpx.Client, runs: Path, result: dict[str, Any] | None) -> None:
    path = written_run(runs, f"little-{'' if result is None else len(result)}", lines=[{}])
    (path / "run.json").write_text(json.dumps({"schema_version": 1, "run_id": "little"}))
    if result is not None:
        (path / "result.json").write_text(json.dumps({"schema_version": 1, **result}))
    for place in ("", "/E1", "/head", "/events?from=1", "/events?from=99999999", "/events?from=x"):
        assert client.get(f"/run/{path.name}{place}").status_code == 200
    assert client.get(f"/compare?a={path.name}&b=one").status_code == 200
    assert client.get("/").status_code == 200


def test_filters_and_orders(client: httpx.Client) -> None:
    def names(query: str) -> list[str]:
        return re.findall(r'<tr data-run="([^"]+)"', client.get(f"/?{query}").text)

    assert "one" in names("verdict=solved")
    assert "left" not in names("verdict=solved")
    assert names("kind=none") == []
    by_time = [row["name"] for row in client.get("/runs.json").json()]
    assert names("sort=date&down=1") == by_time
    assert names("sort=brier&down=0")[0] == "one"
    assert names("sort=nonsense") == by_time


def marple_view(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "marple.cli", "view", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_the_command_prints_its_address_serves_and_ends(runs: Path) -> None:
    environment = {**os.environ, "BROWSER": "/bin/false", "DISPLAY": ""}
    process = marple_view(str(runs), "--port", "0", "--json", "--open", env=environment)
    try:
        assert process.stdout
        record = json.loads(process.stdout.readline())
        assert httpx.get(record["url"], trust_env=False, timeout=30).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in errors
    assert f"no browser could be opened here; open {record['url']} yourself" in errors


def test_a_port_in_use_and_a_missing_folder_are_said(runs: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port}: .*in use; port \d+ is free: --port \d+"):
            Server(runs, port=port)
    with pytest.raises(UsageError, match="marple demo"):
        Server(tmp_path / "none", port=0)
    with pytest.raises(UsageError, match="65535"):
        Server(runs, port=99999)
    with pytest.raises(UsageError, match="cannot listen on"):
        Server(runs, host="203.0.113.7", port=0)
