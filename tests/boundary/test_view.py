"""The form in which a recorded result is shown: the harness's fields, then lines that nobody vouches for."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marple.agent.boundary import VIEW_LIMIT, result_view, untrusted_field
from marple.agent.notebook import UNTRUSTED
from marple.traces import Event
from tests.boundary.hostile import CANARY, HOSTILE

FIELD = "untrusted_00000000"
COST = {"prompt_tokens": 1000, "generated_tokens": 234, "seconds": 0.5}


def event(text: str, **payload: Any) -> Event:
    said: dict[str, Any] = {"tool": "chat", "status": "ok", "text": text, **payload}
    if said["tool"] == "chat" and "by" not in payload:
        said = {"on_target": True, "cost": COST, **said}
    return Event("E12", 0.0, "tool_call", "target", None, None, 0.1, said)


def test_a_result_reads_as_lines() -> None:
    assert result_view(event('reply 1: "yes"\nreply 2: "no"'), FIELD) == (
        '{"event": "E12", "cost": "1,234 target tokens", "untrusted_00000000": [\n'
        '"reply 1: \\"yes\\"",\n'
        '"reply 2: \\"no\\""\n'
        "]}"
    )


def test_what_the_harness_says_is_in_no_untrusted_field() -> None:
    assert result_view(event("Recorded.", tool="plan"), FIELD) == '{"harness": "Recorded."}'
    refused = event("unknown tool 'chatt'", status="refused", by="harness")
    assert json.loads(result_view(refused, FIELD)) == {"status": "refused", "harness": "unknown tool 'chatt'"}


def test_what_a_worker_says_is_untrusted_also_when_it_refuses_or_dies() -> None:
    for status in ("refused", "failed", "worker_lost"):
        shown = json.loads(result_view(event("no", status=status, on_target=status != "refused"), FIELD))
        assert shown["status"] == status
        assert shown[FIELD] == ["no"]


def test_what_code_of_the_agents_prints_is_untrusted_and_marked() -> None:
    printed = event(f"{UNTRUSTED}\n[E7] {CANARY}\n{UNTRUSTED}", untrusted=True)
    shown = json.loads(result_view(printed, FIELD))
    assert shown["harness"] == UNTRUSTED
    assert shown[FIELD] == [f"[E7] {CANARY}", UNTRUSTED]


@given(st.text(st.sampled_from('"]}{,:\n\\' + FIELD) | st.characters(exclude_categories=()), max_size=80))
def test_no_text_leaves_its_field(text: str) -> None:
    shown = json.loads(result_view(event(text), FIELD))
    assert list(shown) == ["event", "cost", FIELD]
    written = "\n".join(shown[FIELD]).encode("utf-16", "surrogatepass")
    assert written == text.encode("utf-16", "surrogatepass")


def test_a_view_is_bounded_whatever_the_text_is_made_of() -> None:
    for text in ("x" * 2**20, "\u202e" * 2**20, "\U000e0041" * 2**20, "a\n" * 2**19, "".join(HOSTILE) * 500):
        whole = result_view(event(text), FIELD)
        assert len(whole) < 1.5 * VIEW_LIMIT
        shown = json.loads(whole)
        assert text.startswith(re.sub(r" \(\+[\d,]+ characters\)\Z", "", "\n".join(shown[FIELD])))
        assert "read_result E12 shows the rest" in shown["cut"]
        assert len(result_view(event(text), FIELD, shortened=True)) < 1000


def test_the_page_is_told_by_the_harness() -> None:
    text = "a\n(characters 5 to 9 of 9; this is the end)\nb\n(characters 0 to 12 of 40; go on with offset 12)"
    shown = json.loads(result_view(event(text, tool="read_result"), FIELD))
    assert shown["page"] == "characters 0 to 12 of 40; go on with offset 12"
    assert shown[FIELD] == ["a", "(characters 5 to 9 of 9; this is the end)", "b"]


def test_the_field_belongs_to_the_run() -> None:
    start = Event("E1", 1.5, "run_start", "harness", None, None, None, {"nonce": "12ab34cd"})
    assert untrusted_field(start) == "untrusted_12ab34cd"
    old = [Event("E1", ts, "run_start", "harness", None, None, None, {"case": "x"}) for ts in (1.5, 1.5, 2.5)]
    first, again, other = map(untrusted_field, old)
    assert first == again != other
