"""A trace whose every field attacks the page: nothing of it acts, and all of it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from marple.traces.labels import add_label
from tests.review.conftest import DESKTOP, PHONE, Open, serving
from tests.review.made_runs import called, hypothesis, result_of, turn, written_run

ATTACK = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>"
    "<iframe srcdoc='<script>alert(4)</script>'></iframe><a href='javascript:alert(5)'>x</a>{{7*7}}</title></textarea>"
    "\x1b[31mred\x1b]8;;http://evil.example\x07link\u202eesrever\u2066\U000e0041\u200b\ud800" + "e" + "\u0301" * 40
)
HUGE = "Wort" * 30_000
LINE = 50 * 2**20


def everywhere(value: Any) -> Any:
    """The same shape with the attack in every string, except where a name decides which view is drawn."""
    if isinstance(value, str):
        return f"{value} {ATTACK}"
    if isinstance(value, dict):
        return {key: one if key in ("tool", "status", "sort", "action", "mark", "round", "type") else everywhere(one)
                for key, one in value.items()}  # fmt: skip
    return [everywhere(one) for one in value] if isinstance(value, list) else value


def hostile_lines() -> list[dict[str, Any]]:
    data = {
        "verdict": "causal", "reason": "r", "rows": [{"ngram": "n", "condition": "c", "found": True}],
        "replies": [{"prompt": "p", "target": ["t"], "reference": ["r"], "text": "x"}],
        "tokens": [{"token": "t", "z": 1.0, "attribution": 1.0}], "features": [{"feature": 1, "tokens": [["a", 1.0]]}],
        "layers": [0], "doses": [{"scale": 1.0, "outcome": 0.5, "example": "e"}],
    }  # fmt: skip
    tools = [
        "chat",
        "compare",
        "battery",
        "steer",
        "project",
        "attribute",
        "sae_features",
        "search_transcripts",
        "mine",
    ]
    calls = [{"id": "i", "name": "n", "arguments": {"a": ["b"], "c": {"d": "e"}}, "raw": "r", "error": None}]
    lines = [
        {"type": "model_call", "role": "investigator", "payload": turn(1, "words", *calls, thinking="thought")},
        {"type": "hypothesis", "payload": hypothesis("H1", "add", 0.4, "a belief", "E2")},
        *({"type": "tool_call", "role": "target", "payload": called(tool, "text", data=data, arguments={"a": "b"})}
          for tool in tools),
        {"type": "error", "payload": {"where": "w", "message": "m", "traceback": "t"}},
        {"type": "forecast", "payload": {"items": [{"id": "i", "prompt": "p", "reply_a": "a", "reply_b": "b"}]}},
        {"type": "answer", "payload": {"answer": result_of(True)["answer"]}},
    ]  # fmt: skip
    lines = [{**line, "payload": everywhere(line["payload"])} for line in lines]
    gone = "sha256:" + "f" * 64
    return [
        *lines,
        {"type": ATTACK, "role": ATTACK, "span": ATTACK, "payload": {ATTACK: ATTACK}},
        {"type": "tool_call", "payload": called("chat", HUGE, text_ref=gone, data_ref=gone)},
        {"type": "tool_call", "payload": called("chat", "x" * LINE)},
    ]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("hostile")
    named = {key: f"{key} {ATTACK}" for key in ("case", "kind", "investigator", "model")}
    path = written_run(root, "run", lines=hostile_lines(), tail=b'{"id": "E99", "torn', **named)
    (path / "result.json").write_text(json.dumps({"schema_version": 1, **everywhere(result_of(True))}))
    add_label(path, event="E2", label="<b>bold</b>", comment=ATTACK, by="<i>")
    with serving(root) as server:
        yield server.address.url.rstrip("/")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "dark"), (PHONE, "light")])
def test_nothing_of_a_hostile_run_acts(look: Open, url: str, size: tuple[int, int], scheme: str) -> None:
    page = look(f"{url}/run/run", size=size, scheme=scheme)
    events = page.locator("details.event")
    expect(events).to_have_count(18)
    page.evaluate("document.querySelectorAll('details.event').forEach(e => e.open = true)")
    for number in range(1, 19):
        expect(page.locator(f"#E{number} .body .tools")).to_be_attached()
    assert page.locator("iframe, object, embed, script:not([src^='/static/']), svg[onload], img[src=x]").count() == 0
    assert page.evaluate("document.querySelectorAll('a[href^=javascript]').length") == 0
    text = page.locator("main").inner_text()
    for shown in ("<script>alert(1)</script>", "\\u001b[31m", "\\u202e", "\\udb40\\udc41", "\\u200b", "{{7*7}}"):
        assert shown in text
    for hidden in ("\x1b", "\u202e", "\u2066", "\u200b", "\U000e0041"):
        assert hidden not in page.content()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_other_pages_do_not_act_either(look: Open, url: str) -> None:
    page = look(url)
    events = ("/run/run/E2", "/run/run/E5", "/run/run/E16")
    for path in ("/", *events, "/compare?a=run&b=run", "/search?q=%3Cscript%3E", "/search?q=alert"):
        page.goto(url + path)
        assert page.locator("iframe, script:not([src^='/static/']), img[src=x]").count() == 0
        assert page.title().endswith("Marple")
    assert "\x1b" not in page.content()


def test_what_cannot_be_shown_whole_is_said(look: Open, url: str) -> None:
    page = look(f"{url}/run/run#E18")
    expect(page.get_by_role("alert").filter(has_text="incomplete")).to_be_visible()
    expect(page.locator("#E18 pre.untrusted")).to_contain_text("more characters")
    assert len(page.content()) < 2_000_000
    page.goto(f"{url}/run/run/E17")
    expect(page.locator(".banner.bad")).to_contain_text("missing now: data, text")
