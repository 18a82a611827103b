import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from marple.errors import ToolError, UsageError
from marple.tools.arguments import Message
from marple.tools.contract import Cost, ToolResult, ToolSpec, discover_tools, tool, tool_spec
from marple.tools.target.target import Target


@tool(rung=2, parallel=True)
def measure(
    target: Target,
    *,
    seed: int,
    messages: list[Message],
    title: str | None = None,
    layer: Annotated[int, Field(ge=0, le=11)] = 3,
    site: Literal["attn", "mlp"] = "mlp",
    scale: float = 1.0,
    slots: dict[str, list[str]] | None = None,
) -> ToolResult:
    """Measure something.

    Over two paragraphs.

    Args:
        messages: the conversation,
            over two lines.
        title: what to call it.
        layer: which layer.
        site: where.
        scale: how much.
        slots: values by name.

    Returns:
        What was measured.

    Example:
        {"messages": [{"role": "user", "content": "hello"}], "layer": 2}
    """
    return ToolResult(text=f"{seed} {layer} {site} {scale}", data={"messages": messages}, cost=Cost(prompt_tokens=3))


HELLO = [{"role": "user", "content": "hello"}]


def test_schema_comes_from_signature_and_docstring() -> None:
    spec = tool_spec(measure)
    properties = spec.parameters["properties"]
    assert spec.parameters["type"] == "object"
    assert spec.parameters["required"] == ["messages"]
    assert list(properties) == ["messages", "title", "layer", "site", "scale", "slots"]
    assert properties["messages"]["description"] == "the conversation, over two lines."
    assert properties["messages"]["items"]["properties"]["role"]["enum"] == ["system", "user", "assistant"]
    assert properties["layer"] == {
        "description": "which layer.", "type": "integer", "minimum": 0, "maximum": 11, "default": 3
    }  # fmt: skip
    assert properties["title"] == {"type": "string", "description": "what to call it."}
    assert properties["slots"]["additionalProperties"] == {"type": "array", "items": {"type": "string"}}


def test_description_holds_summary_returns_and_example_but_not_the_arguments() -> None:
    description = tool_spec(measure).description
    assert description.startswith("Measure something.\n\nOver two paragraphs.\n\nWhat was measured.")
    assert '"content": "hello"' in description
    assert "which layer" not in description


def test_every_schema_is_one_plain_object() -> None:
    def keys(node: Any) -> set[str]:
        if isinstance(node, dict):
            return set(node) | {key for value in node.values() for key in keys(value)}
        return {key for item in node for key in keys(item)} if isinstance(node, list) else set()

    for spec in discover_tools().values():
        json.dumps(spec.parameters, allow_nan=False)
        assert spec.parameters["additionalProperties"] is False
        assert not keys(spec.parameters) & {"$ref", "$defs", "title"}, spec.name
        assert all("description" in value for value in spec.parameters["properties"].values()), spec.name


@pytest.mark.parametrize("spec", discover_tools().values(), ids=discover_tools())
def test_descriptions_and_schemas_stay_short(spec: ToolSpec) -> None:
    assert len(spec.description) + len(json.dumps(dict(spec.parameters))) < 5_000


RUNGS = {
    1: "battery chat compare complete contrast logprobs prefill read_thinking resample search_transcripts",
    2: "export_vectors intervene probe project steer try_monitor",
    3: "attribute diff_activations logit_lens patch sae_compare sae_features sae_lookup sae_search sae_steer",
}


def test_the_tools_of_every_rung_are_found() -> None:
    specs = discover_tools().values()
    assert {rung: [spec.name for spec in specs if spec.rung == rung] for rung in RUNGS} == {
        rung: names.split() for rung, names in RUNGS.items()
    }


@pytest.mark.parametrize("spec", discover_tools().values(), ids=discover_tools())
def test_every_tool_knows_a_known_answer(spec: ToolSpec) -> None:
    assert spec.self_test is not None
    spec.self_test()


def test_run_validates_fills_defaults_and_times(tiny: Target) -> None:
    result = tool_spec(measure).run(tiny, {"messages": HELLO, "scale": 2}, seed=7)
    assert result.text == "7 3 mlp 2.0"
    assert result.data["messages"] == HELLO
    assert result.cost.prompt_tokens == 3
    assert result.cost.seconds > 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({}, ["messages is missing"]),
        ({"messages": HELLO, "layer": 12}, ["layer is 12", "less than or equal to 11"]),
        ({"messages": HELLO, "layer": "3"}, ['layer is "3"', "valid integer"]),
        ({"messages": HELLO, "layer": True}, ["layer is true", "valid integer"]),
        ({"messages": HELLO, "site": "head"}, ['site is "head"', "'attn' or 'mlp'"]),
        ({"messages": HELLO, "scale": float("nan")}, ["not a JSON object"]),
        ({"messages": HELLO, "lyer": 2}, ["lyer is not known", "messages, title, layer, site, scale, slots"]),
        ({"messages": [{"role": "robot", "content": "x"}]}, ['messages[0].role is "robot"', "'system', 'user' or"]),
        ({"messages": [{"role": "user"}]}, ["messages[0].content is missing"]),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, ["messages[0].name is not known"]),
        ({"messages": "hello"}, ['messages is "hello"', "valid array"]),
        ({"messages": HELLO, "slots": {"a": [1]}}, ["slots.a[0] is 1", "valid string"]),
    ],
)
def test_a_refusal_names_argument_value_allowed_set_and_example(
    tiny: Target, arguments: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ToolError) as caught:
        tool_spec(measure).run(tiny, arguments, seed=0)
    message = str(caught.value)
    assert message.startswith("measure: ")
    assert 'Example: {"messages": [{"role": "user", "content": "hello"}], "layer": 2}' in message
    for part in parts:
        assert part in message


def test_a_long_value_is_cut_in_the_refusal(tiny: Target) -> None:
    with pytest.raises(ToolError) as caught:
        tool_spec(measure).run(tiny, {"messages": "x" * 10_000}, seed=0)
    assert len(str(caught.value)) < 400


def test_a_tool_that_needs_a_reference_says_so_without_one(tiny: Target) -> None:
    with pytest.raises(ToolError, match="compare needs a reference model"):
        discover_tools()["compare"].run(tiny, {"conditions": {"a": ["hello"]}}, seed=0)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "def bad(target, *, seed: int, x: int) -> ToolResult:\n    '''A.\n\n    Example:\n        {}\n    '''",
            "Args",
        ),
        ("def bad(target, *, seed: int, x) -> ToolResult:\n    '''A.\n\n    Args:\n        x: y.\n    '''", "no type"),
        (
            "def bad(target, *, seed: int, x: int) -> ToolResult:\n    '''A.\n\n    Args:\n        x: y.\n    '''",
            "missing",
        ),
        (
            "def bad(target, *, seed: int, x: int) -> ToolResult:\n"
            "    '''A.\n\n    Args:\n        x: y.\n\n    Example:\n        {\"x\": \"1\"}\n    '''",
            "is not valid",
        ),
        ("def bad(seed: int, target) -> ToolResult:\n    '''A.'''", "must begin with"),
        ("def bad(:", "cannot be imported"),
    ],
)
def test_a_tool_that_breaks_the_contract_is_refused_with_the_reason(
    tmp_path: Path, source: str, complaint: str
) -> None:
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from __future__ import annotations\nfrom marple.tools.contract import ToolResult, tool\n\n"
        f"@tool(rung=1)\n{source}\n    return ToolResult(text='')\n"
    )
    with pytest.raises(UsageError, match=complaint):
        discover_tools([plugin])


def test_two_tools_of_one_name_are_refused(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from marple.tools.contract import ToolResult, tool\n\n"
        "@tool(rung=1)\ndef chat(target, *, seed: int) -> ToolResult:\n"
        "    '''Mine.'''\n    return ToolResult(text='')\n"
    )
    with pytest.raises(UsageError, match="two tools are called 'chat'"):
        discover_tools([plugin])


def test_a_plugin_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a Python file"):
        discover_tools([tmp_path / "nowhere.py"])


def test_an_imported_tool_is_not_found_twice(tmp_path: Path) -> None:
    plugin = tmp_path / "importing.py"
    plugin.write_text("from marple.tools.experiments.chat import chat\n")
    assert list(discover_tools([plugin])) == list(discover_tools())


def test_the_contract_and_the_checks_import_nothing_heavy() -> None:
    program = (
        "import sys, marple.tools.contract, marple.tools.target.loading, marple.tools.target.checkpoint\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'numpy', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
