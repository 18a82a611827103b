"""What a program gives back: what it prints, shows, raises and saves, and the same numbers as the tools'."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from marple.errors import ToolError
from marple.sandboxes import Worker
from tests.code.conftest import Run, printed

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_is_printed_and_the_value_of_the_last_expression_are_shown(run: Run) -> None:
    result = await run("import sys\nprint('one')\nprint('two', file=sys.stderr)\n{'three': 3}")
    assert result.data["ended"] == "finished"
    assert printed(result) == ["one", "two", "{'three': 3}"]
    assert [line for line in result.text.split("\n") if line.startswith("| ")] == ["| one", "| two", "| {'three': 3}"]


async def test_none_and_what_a_semicolon_ends_are_not_shown(run: Run) -> None:
    assert printed(await run("None")) == []
    assert printed(await run("40 + 2;")) == []
    assert printed(await run("import os\nos.system('echo from a child')")) == ["from a child", "0"]


async def test_replies_are_the_tools_own_to_the_letter(run: Run, tool_worker: Worker) -> None:
    arguments = {"messages": [{"role": "user", "content": "who is it"}], "samples": 3, "max_new_tokens": 8}
    chat = await tool_worker.call("chat", arguments, seed=7)
    program = "target.generate('who is it', n=3, max_new_tokens=8)"
    assert printed(await run(program)) == [repr([reply["text"] for reply in chat.data["replies"]])]
    reference = await tool_worker.call("chat", {**arguments, "on": "reference"}, seed=7)
    assert printed(await run(f"reference.{program[7:]}")) == [repr([r["text"] for r in reference.data["replies"]])]


async def test_a_prompt_alone_a_list_a_conversation_and_token_ids(run: Run) -> None:
    program = """
def ask(prompts, **given):
    return target.generate(prompts, max_new_tokens=4, temperature=0, **given)
conversation = [{"role": "user", "content": "who is it"}]
ids = target.render(conversation)
one = ask("who is it")
print(one == ask(conversation) == ask(ids) == ask(torch.tensor(ids)) == ask(np.array(ids)))
print(ask(["who is it", "tell me"])[0] == one == ask([conversation])[0])
print(target.decode(target.encode("red lamp")), ask("red lamp", chat=False) == ask(target.encode("red lamp")))
print(target.generate("a", max_new_tokens=9, seed=3) == target.generate("a", max_new_tokens=9, seed=3))
print(target.generate("a", max_new_tokens=9) == target.generate("a", max_new_tokens=9))
"""
    assert printed(await run(program)) == ["True", "True", "red lamp True", "True", "False"]


async def test_activations_have_the_shapes_that_are_promised(run: Run, code_worker: Worker) -> None:
    program = """
for given in ({"layer": 1}, {"layer": [0, 1]}, {}, {"site": "blocks.0.hook_mlp_out"}, {"layer": -1, "mean": True,
              "positions": "all"}):
    print(target.capture(["red", "blue lamp"], **given).shape, target.capture("red", **given).shape)
print([a.shape for a in target.capture(["red", "blue lamp"], layer=0, positions="all", chat=False)])
print(target.capture(["red"], positions=[0, -1])[0].shape, target.capture("a").dtype, target.next_logits("a").shape)
print(target.next_logits(["a", "b"]).shape, target.layers, target.d_model)
ids = torch.tensor([target.render([{"role": "user", "content": "red"}])])
own = target.model(ids, output_hidden_states=True).hidden_states[1][0, -1].numpy()
print(np.abs(own - target.capture("red", layer=0)).max() < 1e-5)
"""
    assert printed(await run(program)) == [
        "(2, 32) (32,)",
        "(2, 2, 32) (2, 32)",
        "(2, 2, 32) (2, 32)",
        "(2, 32) (32,)",
        "(2, 32) (32,)",
        "[(2, 32), (3, 32)]",
        f"(2, 2, 32) float32 ({code_worker.facts['vocab']},)",
        f"(2, {code_worker.facts['vocab']}) 2 32",
        "True",
    ]


async def test_edits_change_what_they_should(run: Run) -> None:
    program = """
plain = target.capture("who is it", layer=1)
v = np.ones(target.d_model)
edit = [{"layer": 1, "vector": v, "scale": 2.0}]
print(np.allclose(target.capture("who is it", layer=1, interventions=edit), plain + 2, atol=1e-5))
one = {"layer": 1, "vector": torch.tensor(v), "op": "replace"}
print(np.allclose(target.capture("who is it", layer=1, interventions=one), 1))
print(target.generate("who", seed=1, interventions=edit, max_new_tokens=9) != target.generate("who", 9, seed=1))
target.generate("a", interventions=[{"layer": 1, "vektor": v}])
"""
    result = await run(program)
    assert printed(result) == ["True", "True", "True"]
    assert "ToolError: an intervention: 'vektor' is not known; its keys are vector, site" in result.text


async def test_hooks_and_gradients_of_ones_own(run: Run) -> None:
    program = """
before = target.generate("who is it", max_new_tokens=4, temperature=0)
hook = target.model.model.layers[0].register_forward_hook(lambda module, given, out: out * 0)
print(target.generate("who is it", max_new_tokens=4, temperature=0) == before)
hook.remove()
print(target.generate("who is it", max_new_tokens=4, temperature=0) == before)
embedded = target.model.get_input_embeddings()(torch.tensor([[1, 2, 3]])).detach().requires_grad_(True)
target.model(inputs_embeds=embedded).logits[0, -1].max().backward()
print(bool(embedded.grad.norm() > 0), torch.get_num_threads())
"""
    assert printed(await run(program)) == ["False", "True", "True 1"]


async def test_an_error_shows_the_programs_lines_and_no_path_of_the_host(run: Run) -> None:
    result = await run("def half(x):\n    return torch.nn.Linear(3, 4)(x)\n\nprint('so far')\nhalf(torch.ones(5))")
    assert result.data["ended"] == "raised"
    assert printed(result) == ["so far"]
    told = result.data["error"]
    assert 'File "code", line 5\n    half(torch.ones(5))' in told
    assert 'File "code", line 2, in half\n    return torch.nn.Linear(3, 4)(x)' in told
    assert told.strip().endswith("(1x5 and 3x4)")
    assert '"torch/nn/modules/linear.py"' in told
    assert '"/' not in told
    assert "marple" not in told


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("x = = 3", "SyntaxError: invalid syntax"),
        ("target.capture('a', layer=9)", "ToolError: layer 9 does not exist; this model has layers 0 to 1"),
        ("target.generate([])", "ToolError: prompts is empty"),
        ("target.generate('a', temperature=0, n=2)", "ToolError: samples is 2 at temperature 0"),
        ("target.capture('a', positions='first')", 'ToolError: positions is "first"'),
        ("target.generate(3)", "TypeError"),
        ("raise ValueError('x' * 100_000)", "characters left out"),
        ("def deep(): deep()\ndeep()", "RecursionError: maximum recursion depth exceeded"),
        ("class Odd(Exception):\n    def __str__(self): raise Odd\nraise Odd()", "exception str() failed"),
        ("try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError('k') from e", "ZeroDivisionError"),
    ],
)
async def test_errors_say_what_is_wrong(run: Run, program: str, said: str) -> None:
    result = await run(program)
    assert result.data["ended"] == "raised"
    assert said in result.data["error"]
    assert len(result.data["error"]) < 9000


async def test_things_that_are_saved_come_back_as_bytes(run: Run) -> None:
    program = """
save("numbers", np.arange(6, dtype=np.int16).reshape(2, 3))
save("tensor.npy", torch.full((2,), 0.5, dtype=torch.bfloat16))
save("big endian", np.arange(3, dtype=">f8")[::-1])
save("table", [{"word": "lamp", "share": 0.5}, {"word": "a,b", "n": 2}])
save("facts", {"a": np.float32(1.5), "b": [torch.tensor(2)]})
save("note", "first")
save("note", "second \\N{SNOWMAN}")
figure, axes = plt.subplots()
axes.plot([1, 2])
save("curve", axes)
plt.figure(); plt.plot([3, 4]);
"""
    result = await run(program)
    saved = {artifact.name: artifact for artifact in result.artifacts}
    assert result.data["ended"] == "finished", result.text
    assert list(saved) == [
        *("numbers.npy", "tensor.npy", "big endian.npy", "table.csv", "facts.json", "note.txt"),
        *("curve.png", "figure-1.png"),
    ]
    numbers = np.load(io.BytesIO(saved["numbers.npy"].data), allow_pickle=False)
    assert numbers.dtype == np.int16
    assert numbers.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.load(io.BytesIO(saved["tensor.npy"].data), allow_pickle=False).tolist() == [0.5, 0.5]
    assert np.load(io.BytesIO(saved["big endian.npy"].data), allow_pickle=False).tolist() == [2, 1, 0]
    assert saved["table.csv"].data.decode() == 'word,share,n\nlamp,0.5,\n"a,b",,2\n'
    assert json.loads(saved["facts.json"].data) == {"a": 1.5, "b": [2]}
    assert saved["note.txt"].data.decode() == "second \N{SNOWMAN}"
    assert saved["curve.png"].data.startswith(b"\x89PNG")
    assert {fact["name"]: fact["about"] for fact in result.data["saved"]}["numbers.npy"] == "int16 (2, 3)"
    assert "saved tensor.npy: application/x-npy, float32 (2,)" in result.text


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("save('../up', 'x')", "ValueError: the name '../up.txt' is not allowed"),
        ("save('a' * 100, 'x')", "is not allowed"),
        ("save('words', np.array(['a']))", "TypeError: save cannot keep an array of type <U1"),
        ("save('object', np.array([object()]))", "TypeError: save cannot keep an array of type object"),
        ("save('huge', np.zeros(600_000))", "4,800,128 bytes; the limit is 4,194,304"),
        ("save('a', np.zeros(500_000))\nsave('b', np.zeros(500_000))", "8,000,256 bytes are saved with 'b'"),
        ("for i in range(17): save(str(i), 'x')", "17 things are saved; the limit is 16"),
        ("save(lambda: 0, 1)", "the first argument of save is the name"),
        ("save('f', lambda: 0)", "save cannot keep a function"),
    ],
)
async def test_what_cannot_be_saved_is_said_where_it_is_tried(run: Run, program: str, said: str) -> None:
    result = await run(program)
    assert result.data["ended"] == "raised"
    assert said in result.data["error"]
    assert sum(len(artifact.data) for artifact in result.artifacts) <= 5 * 2**20


async def test_the_same_seed_gives_the_same_random_numbers(run: Run) -> None:
    program = "import random\nprint(random.random(), np.random.rand(), torch.rand(1).item())"
    first, again, other = await run(program), await run(program), await run(program, seed=8)
    assert printed(first) == printed(again) != printed(other)


async def test_tokens_are_counted_and_seconds_go_by(run: Run, code_worker: Worker) -> None:
    result = await run(
        "target.generate(['who', 'a b'], n=2, max_new_tokens=3, temperature=1.0); target.capture('who');"
    )
    assert result.cost.prompt_tokens > 0
    assert 4 <= result.cost.generated_tokens <= 12
    heard: list[tuple[int, int, str]] = []
    program = {"code": "import time\ntime.sleep(2.5)", "timeout_seconds": 20}
    await code_worker.call("python", program, seed=1, on_progress=lambda *said: heard.append(said))
    assert {(total, what) for _, total, what in heard} == {(20, "seconds")}
    assert [done for done, _, _ in heard] == [1, 2]


async def test_arguments_are_checked_before_anything_runs(code_worker: Worker) -> None:
    for wrong in ({}, {"code": 3}, {"code": "  "}, {"code": "1", "timeout_seconds": 0}, {"code": "1", "keep": True}):
        with pytest.raises(ToolError):
            await code_worker.call("python", wrong, seed=1)
