"""What every refusal of the white-box tools has: what was given, what is allowed, and an example."""

import re
from typing import Any

import pytest

from marple.errors import ToolError, WireError
from marple.tools.contract import discover_tools
from marple.tools.saes.planted import planted_target
from marple.tools.target.target import Target
from marple.tools.wire import encode_body

TOOLS = discover_tools()
LONG = "red lamp " * 200
CONTRAST = {"positive": ["a cat", "a dog"], "negative": ["a tree", "a road"]}
STEER = {**CONTRAST, "prompts": ["who", "tell me"], "words": ["cup"], "scales": [0.5], "samples": 1}
PATCH = {"clean": "the red lamp", "corrupted": "the old lamp", "answer": "yes", "other": "no"}


@pytest.fixture(scope="module")
def target() -> Target:
    return planted_target(["lamp", "river"])


@pytest.mark.parametrize(
    ("tool", "arguments", "given", "allowed"),
    [
        ("steer", {**STEER, "layer": 9}, "layer 9", "layers 0 to 1"),
        ("steer", {**STEER, "site": "resid_past"}, '"resid_past"', "give one of resid_pre"),
        ("project", {**CONTRAST, "text": "red", "site": "blocks.7.hook_resid_post"}, "layer 7", "layers 0 to 1"),
        ("logit_lens", {"text": "red", "layers": [-4]}, "layer -4", "layers 0 to 1"),
        ("logit_lens", {"text": "red", "positions": [99]}, "position 99", "allowed are 0 to"),
        ("patch", {**PATCH, "positions": [99]}, "position 99", "allowed are 0 to"),
        ("sae_features", {"text": "red", "position": -50}, "position -50", "allowed are 0 to"),
        ("sae_features", {"text": "red", "sae": "other"}, '"other"', "there are: planted"),
        ("sae_lookup", {"features": [99]}, "feature 99", "features 0 to 1"),
        ("sae_steer", {"feature": 99, "prompts": ["who", "tell me"]}, "feature 99", "features 0 to 1"),
        ("steer", {**STEER, "positive": None, "negative": None, "feature": 99}, "feature 99", "features 0 to 1"),
        ("steer", {**STEER, "positive": [], "negative": []}, "holds 0 texts", "at least 2 on each side"),
        ("probe", {"positive": ["a cat"], "negative": ["a dog"]}, "holds 1 texts", "at least 5 on each side"),
        ("steer", {**STEER, "scales": [0.0]}, r"\[0.0\]", "finite numbers other than 0"),
        ("steer", {**STEER, "prompts": [LONG, LONG]}, r"\d+ tokens", "context of 256"),
        ("logit_lens", {"text": LONG}, r"\d+ tokens", "context holds 256"),
        ("attribute", {"prompt": LONG, "answer": "yes"}, r"\d+ tokens", "context holds 256"),
        ("attribute", {"prompt": "red lamp " * 122, "answer": " lamp" * 20}, r"\d+ tokens", "context holds 256"),
    ],
)
def test_it_says_what_was_given_what_is_allowed_and_an_example(
    target: Target, tool: str, arguments: dict[str, Any], given: str, allowed: str
) -> None:
    arguments = {name: value for name, value in arguments.items() if value is not None}
    with pytest.raises(ToolError) as refused:
        TOOLS[tool].run(target, arguments, seed=0)
    message = str(refused.value)
    for part in (given, allowed, "for example|such as|Example: "):
        assert re.search(part, message), message
    # The target answers on.
    assert TOOLS["logit_lens"].run(target, {"text": "red"}, seed=0).text


@pytest.mark.parametrize(("number", "name"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_number_that_is_none_is_named(target: Target, number: float, name: str) -> None:
    arguments = {**STEER, "scales": [1.0, number]}
    with pytest.raises(ToolError, match=rf"scales.*{name}"):
        TOOLS["steer"].run(target, arguments, seed=0)
    # On the way to the worker too, where JSON has no such numbers.
    with pytest.raises(
        WireError, match=rf"arguments\.scales\[1\] is {name}, .* finite numbers alone, for example 1\.0"
    ):
        encode_body({"arguments": arguments})
