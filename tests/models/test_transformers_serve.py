"""The Chat adapter against a server nobody here wrote: ``transformers serve`` with a small random Llama."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import (
    AssistantMessage,
    Message,
    ModelTurn,
    ScriptedModel,
    ToolCall,
    ToolMessage,
    ToolSchema,
    UserMessage,
    open_model,
)
from marple.agent.run import launch
from marple.errors import ModelError
from marple.traces import RunFolder

pytestmark = pytest.mark.slow

WORDS = ["<s>", "</s>", "<unk>", *(f"word{number}" for number in range(61))]
TEMPLATE = """{% for message in messages %}{{ message.role }} {{ message.content }}
{% for call in message.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments.prompt }}
{% endfor %}{% endfor %}assistant """


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("llama")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = False
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def address(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("hub"))}
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--device", "cpu", "--port", str(port)],
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not come up: {log.read_text(errors='replace')[-2000:]}")


async def test_it_streams_text_and_counts_tokens(checkpoint, address):
    model = open_model(f"openai-chat/{checkpoint}", base_url=address)
    shown: list[str] = []
    turn = await model.generate("word1", [UserMessage("word2")], [], max_output_tokens=8, on_delta=shown.append)
    await model.close()
    assert turn.text == "".join(shown)
    assert set(turn.text.split()) <= set(WORDS)
    assert len(shown) > 1
    assert turn.stop == "length"
    assert (turn.usage.reported, turn.usage.output_tokens, turn.usage.cost_usd) == (True, 8, None)
    assert turn.usage.input_tokens == len(["system", "word1", "user", "word2", "assistant"])


async def test_it_accepts_tools_calls_and_results(checkpoint, address):
    model = open_model(f"openai-chat/{checkpoint}", base_url=address, effort="low")
    good = ToolCall.of("chat", {"prompt": "word3"}, id="id_1")
    broken = ToolCall.parse("id_2", "chat", raw='{"prompt": ')
    history: list[Message] = [
        UserMessage("word2"),
        AssistantMessage(ModelTurn(tool_calls=(good, broken))),
        ToolMessage("id_1", "chat", "word4"),
        ToolMessage("id_2", "chat", "not JSON", is_error=True),
    ]
    tools = [ToolSchema("chat", "Talk.", {"type": "object", "properties": {"prompt": {"type": "string"}}})]
    turn = await model.generate("", history, tools, max_output_tokens=4)
    await model.close()
    assert turn.stop == "length"
    assert turn.usage.output_tokens == 4


async def test_its_own_errors_are_told(address):
    model = open_model("openai-chat/no-such-model-here", base_url=address, max_retries=0)
    with pytest.raises(ModelError, match="openai-chat/no-such-model-here: "):
        await model.generate("", [UserMessage("word2")], [], max_output_tokens=4)
    await model.close()


async def test_it_is_a_target_that_is_examined(checkpoint, address, tmp_path):
    name, sets = f"openai-chat/{checkpoint}", {"first": ["word1", "word2"], "second": ["word3", "word4"]}
    asked = {"messages": [{"role": "system", "content": "word1"}, {"role": "user", "content": "word2"}]}
    calls = [
        ToolCall.of("chat", {**asked, "temperature": 0, "max_new_tokens": 6}, id="a"),
        ToolCall.of("contrast", {**sets, "samples": 2, "max_new_tokens": 4}, id="b"),
        ToolCall.of("compare", {"conditions": {"all": ["word5"]}, "samples": 2, "max_new_tokens": 4}, id="c"),
    ]
    answer = {"nothing_hidden": 0.5, "candidates": [], "claims": [], "summary": "done"}
    turns = [ModelTurn(tool_calls=tuple(calls)), ModelTurn(tool_calls=(ToolCall.of("submit", answer),))]
    config = RunConfig.of(
        target=name, target_base_url=address, reference=name, investigator="llm", runs=tmp_path / "runs"
    )
    outcome = await launch(config, investigator=LlmInvestigator(ScriptedModel(turns)))
    assert outcome.status == "submitted"
    made = {e.payload["tool"]: e.payload for e in RunFolder.open(outcome.path).events() if e.type == "tool_call"}
    assert {tool: payload["status"] for tool, payload in made.items()} == dict.fromkeys(made, "ok")
    assert made.keys() == {"chat", "contrast", "compare", "submit"}
    (reply,) = made["chat"]["data"]["replies"]
    assert set(reply["text"].split()) <= set(WORDS)
    assert (reply["finish"], reply["tokens"]) == ("length", 6)
    assert made["chat"]["cost"]["prompt_tokens"] == len(["system", "word1", "user", "word2", "assistant"])
