"""Turns survive the trace, whatever a model says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marple.agent.models import ModelTurn, Price, Stop, ToolCall, Usage

text = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
counts = st.integers(0, 10**9)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_input_tokens=counts,
    cache_creation_input_tokens=counts,
    reasoning_output_tokens=counts,
    cost_usd=st.none() | st.floats(0, 1e6),
    reported=st.booleans(),
)
raw_json = text | json_values.map(json.dumps)
turns = st.builds(
    ModelTurn,
    text=text,
    thinking=st.lists(text, max_size=3).map(tuple),
    tool_calls=st.lists(st.builds(lambda i, n, r: ToolCall.parse(i, n, raw=r), text, text, raw_json)).map(tuple),
    stop=st.sampled_from(get_args(Stop)),
    stop_detail=st.none() | text,
    usage=usages,
    native=st.none() | st.fixed_dictionaries({"wire": text, "content": json_values}),
    request_id=st.none() | text,
    model=text,
    response_model=st.none() | text,
    seconds=st.floats(0, 1e6),
)


@given(turns)
def test_a_turn_survives_json(turn):
    assert ModelTurn.from_dict(json.loads(json.dumps(turn.to_dict(), allow_nan=False))) == turn


pieces_of_json = st.text(st.sampled_from('{}[]":,\\udu8190aNI\ud83e\udd89🦉'), max_size=30)


@given(st.text(max_size=30) | pieces_of_json)
@example('{"a": "\ud83e"}')
def test_any_arguments_make_a_call(raw):
    call = ToolCall.parse("i", "n", raw=raw)
    assert (call.arguments is None) == (call.error is not None)
    assert isinstance(call.sendable, dict)
    json.dumps([call.raw, call.sendable], ensure_ascii=False, allow_nan=False).encode()


def test_arguments_nested_too_deeply_are_malformed():
    call = ToolCall.parse("i", "n", raw='{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    assert call.arguments is None


def test_fields_of_a_later_version_are_ignored():
    turn = ModelTurn(text="hi")
    assert ModelTurn.from_dict(turn.to_dict() | {"mood": "good"}) == turn


def test_an_unknown_stop_reason_is_refused():
    with pytest.raises(ValueError, match="unknown stop reason 'tired'.*refusal"):
        ModelTurn.from_dict(ModelTurn().to_dict() | {"stop": "tired"})


def test_a_turn_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ModelTurn().text = "other"  # type: ignore[misc]


@given(counts, counts, counts, counts)
def test_a_cost_is_the_sum_of_its_parts(plain, read, written, output):
    usage = Usage(
        input_tokens=plain + read + written,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
    )
    cost = Price(input=3, output=15, cache_read=0.3, cache_write=3.75).cost(usage)
    assert cost == pytest.approx((3 * plain + 0.3 * read + 3.75 * written + 15 * output) / 1e6)


def test_what_is_not_known_costs_none():
    price = Price(input=3, output=15)
    assert price.cost(Usage(input_tokens=1_000_000)) == 3
    assert price.cost(Usage(input_tokens=10, cache_read_input_tokens=5)) is None
    assert price.cost(Usage(input_tokens=10, cache_creation_input_tokens=5)) is None
    assert price.cost(Usage(reported=False)) is None


def test_importing_the_package_imports_no_sdk():
    code = "import sys, marple.agent.models; print({'openai', 'anthropic', 'httpx2', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
