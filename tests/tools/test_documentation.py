import re
from pathlib import Path

from marple.tools.contract import discover_tools
from marple.tools.target.target import Target

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"


def test_the_example_tool_of_the_page_works_from_a_file_of_its_own(tmp_path: Path, planted: Target) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    plugin = tmp_path / "shouting.py"
    plugin.write_text(source)
    tools = discover_tools([plugin])
    assert set(tools) - set(discover_tools()) == {"shouting"}
    result = tools["shouting"].run(planted, {"prompts": ["who is it", "tell me"]}, seed=3)
    assert result.data["share"] == 0
    assert result.text == "0% capital letters"


def test_the_page_lists_every_tool() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(discover_tools())
