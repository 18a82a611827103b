"""A stranger's model against its host (attacks 65 to 69): refused with what is missing and how to get it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marple.errors import MarpleError, SandboxError, StagingError, TargetRefusedError, ToolError, WorkerTimeoutError
from marple.sandboxes import Limits, stage, start_worker
from tests.host_attacks.test_frames import Trap


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from marple.tools.target.tiny import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def test_a_sound_model_is_staged(model: Path) -> None:
    with stage(model) as staged:
        assert (staged.target / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "consolidated.00.pth", "model.ckpt"])
def test_a_pickled_checkpoint_is_refused_and_never_opened(model: Path, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    (model / "model.safetensors").unlink()
    torch.save({"x": Trap(canary)}, model / name)
    with pytest.raises(TargetRefusedError, match=r"pickle runs code.*convert it with save_pretrained"):
        stage(model)
    assert not canary.exists()
    torch.load(model / name, weights_only=False)
    assert canary.exists(), "loaded, it would have worked"


def test_a_pickle_beside_sound_weights_stays_outside(model: Path, tmp_path: Path) -> None:
    (model / "training_args.bin").write_bytes(pickle.dumps(Trap(tmp_path / "canary")))
    with stage(model) as staged:
        assert not list(staged.root.rglob("*.bin"))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json"])
def test_code_of_a_models_own_is_refused(model: Path, tmp_path: Path, place: str) -> None:
    canary = tmp_path / "canary"
    config = json.loads((model / place).read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_x.Model", "AutoTokenizer": ["x.T", None]}
    (model / place).write_text(json.dumps(config))
    with pytest.raises(TargetRefusedError, match=f"auto_map in {place}.*use a checkpoint of an architecture"):
        stage(model)
    (model / "modeling_x.py").write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")
    with pytest.raises(TargetRefusedError, match=r"its own code.*remove the files"):
        stage(model)
    assert not canary.exists()
    exec((model / "modeling_x.py").read_text())
    assert canary.exists(), "imported, it would have worked"


def header(entries: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


EVIL: dict[str, Callable[[], bytes]] = {
    "a header of 2^63 bytes": lambda: header({}, length=2**63),
    "a header beyond the end": lambda: header({}, length=10**6),
    "tensors that overlap": lambda: header({"a": entry(0, 8), "b": entry(4, 12)}, b"x" * 12),
    "a gap": lambda: header({"a": entry(0, 4), "b": entry(8, 12)}, b"x" * 12),
    "an offset beyond the end": lambda: header({"a": entry(0, 2**40)}, b"x"),
    "a shape that overflows": lambda: header({"a": entry(0, 4, [2**40, 2**40])}, b"x" * 4),
    "half a million tensors": lambda: header({str(number): entry(0, 0) for number in range(500_000)}),
    "metadata of 40 MB": lambda: header({"__metadata__": {"x": "y" * 40_000_000}}),
    "numbers of a million digits": lambda: header(b'{"a":{"dtype":"F32","shape":[' + b"9" * 10**6 + b"]}}"),
    "nesting": lambda: header(b'{"a":' * 100_000),
}


@pytest.mark.parametrize("what", EVIL)
def test_evil_headers_are_refused_in_no_time(model: Path, what: str) -> None:
    (model / "model.safetensors").write_bytes(EVIL[what]())
    began = time.monotonic()
    with pytest.raises(TargetRefusedError, match=r"model\.safetensors"):
        stage(model)
    assert time.monotonic() - began < 20


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    "content",
    [
        {"weight_map": {"a": "../secret.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "sub/../../secret.safetensors"}},
        {"weight_map": {"a": "config.json"}},
        {"weight_map": {"a": "."}},
        {"weight_map": {"a": ["model.safetensors"]}},
        {"weight_map": ["x"]},
        {"weight_map": {}},
        {},
    ],
)
def test_an_index_that_points_elsewhere_or_nowhere_is_refused(model: Path, content: Any) -> None:
    (model / "model.safetensors").rename(model.parent / "secret.safetensors")
    (model / INDEX).write_text(json.dumps(content))
    with pytest.raises(TargetRefusedError, match=r"index\.json"):
        stage(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"])
@pytest.mark.parametrize("kind", ["link to a secret", "link to a device", "pipe", "directory"])
def test_what_is_no_regular_file_is_refused_at_once(model: Path, tmp_path: Path, name: str, kind: str) -> None:
    (model / name).unlink()
    (tmp_path / "secret").write_text("{}")
    if kind == "pipe":
        os.mkfifo(model / name)
    elif kind == "directory":
        (model / name).mkdir()
    else:
        (model / name).symlink_to("/dev/zero" if "device" in kind else tmp_path / "secret")
    with pytest.raises((TargetRefusedError, StagingError)):
        stage(model)


ODD = [b"[]", b'{"a":"\\ud800"}', b'{"a":' + b"9" * 5000 + b"}"]
"""Harmless in some of the files."""


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 200_000, b"\xff", b"", *ODD])
def test_json_that_is_an_attack_is_a_typed_error(model: Path, name: str, content: bytes) -> None:
    (model / name).write_bytes(content)
    try:
        stage(model).remove()
        reason = ""
    except MarpleError as error:
        reason = str(error)
    assert reason or content in ODD
    assert len(reason) < 2000


# ------------------------------------------------------------------------------------------ templates


async def said(model: Path, template: str) -> str:
    (model / "chat_template.jinja").write_text(template)
    with stage(model) as staged:
        limits = Limits(threads=1, device="cpu", call_seconds=8)
        async with await start_worker(staged, backend="process", limits=limits) as worker:
            arguments = {"messages": [{"role": "user", "content": "one"}], "max_new_tokens": 1}
            return (await worker.call("chat", arguments, seed=0)).text


async def test_a_template_without_end_costs_its_worker_and_not_the_host(model: Path) -> None:
    with pytest.raises(SandboxError, match="Range too big"):
        await said(model, "{% for a in range(10**9) %}{% endfor %}x")
    rounds = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3
    with pytest.raises(WorkerTimeoutError):
        await said(model, rounds + "x")


@pytest.mark.parametrize(
    "expression",
    ["messages.__class__.__mro__[1].__subclasses__()", "''.__class__.__init__.__globals__", "messages.append(1)"],
)
async def test_a_template_gets_at_no_attribute(model: Path, expression: str) -> None:
    with pytest.raises(ToolError, match="chat template"):
        await said(model, f"{{{{ {expression} }}}}")


async def test_an_ordinary_template_works(model: Path) -> None:
    assert await said(model, (model / "chat_template.jinja").read_text())
