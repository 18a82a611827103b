"""The worker's word that the weights it measures are those it loaded."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from marple.errors import SandboxError, ToolError
from marple.sandboxes import Limits, StagedTarget, Worker, stage, start_worker
from marple.sandboxes.client import Digests
from marple.sandboxes.process import BACKEND
from tests.sandboxes.test_staging_beside import make_sae

LIMITS = Limits(threads=1, device="cpu")
pytestmark = pytest.mark.asyncio(loop_scope="module")
PLUGIN = Path(__file__).with_name("changing_tools.py")


@pytest.fixture(scope="module")
def staged(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagedTarget]:
    sae = make_sae(tmp_path_factory.mktemp("saes") / "one")
    with stage(models / "first", reference=models / "second", saes=[sae], plugins=[PLUGIN]) as staged:
        yield staged


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(staged: StagedTarget) -> AsyncIterator[Worker]:
    async with await start_worker(staged, limits=LIMITS) as worker:
        yield worker


def unlike(one: Digests, other: Digests) -> set[str]:
    """Which of the digests differ."""
    return {name for name in ("target", "reference", "saes") if getattr(one, name) != getattr(other, name)}


async def test_unchanged_weights_keep_their_digests_and_a_new_worker_finds_the_same(staged: StagedTarget) -> None:
    found = []
    for _ in range(2):
        async with await start_worker(staged, limits=LIMITS) as worker:
            assert worker.digests is not None
            assert worker.digests.target == worker.facts["weights_sha256"]
            assert worker.digests.reference != worker.digests.target
            assert list(worker.digests.saes) == ["blocks.1.hook_resid_post"]
            await worker.call("complete", {"text": "one", "max_new_tokens": 2}, seed=0)
            assert await worker.digest() == worker.digests
            found.append(worker.digests)
    assert found[0] == found[1]


async def test_a_change_that_is_taken_back_leaves_the_digest(worker: Worker) -> None:
    await worker.call("change", {"what": "and back"}, seed=0)
    assert await worker.digest() == worker.digests


async def test_no_shipped_tool_changes_a_weight(worker: Worker) -> None:
    outcomes = {outcome.name: outcome.ok for outcome in await worker.self_test()}
    assert outcomes.pop("change") is False, "it has no self-test"
    assert len(outcomes) >= 22
    assert all(outcomes.values())
    assert await worker.digest() == worker.digests


async def test_calls_and_digests_at_once(worker: Worker) -> None:
    calls = [worker.call("complete", {"text": "one", "max_new_tokens": 8}, seed=seed) for seed in range(4)]
    *_, digest = await asyncio.gather(*calls, worker.digest())
    assert digest == worker.digests


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("one bit of the target", {"target"}),
        ("a buffer of the target", {"target"}),
        ("an exchange of two equal shapes", {"target"}),
        ("the reference", {"reference"}),
        ("the autoencoder", {"saes"}),
        ("another autoencoder", {"saes"}),
        ("the type of the target", {"target"}),
    ],
)
async def test_a_tool_that_changes_a_weight_is_found_out(worker: Worker, what: str, expected: set[str]) -> None:
    before = await worker.digest()
    await worker.call("change", {"what": what}, seed=0)
    after = await worker.digest()
    assert unlike(before, after) == expected
    assert worker.digests is not None
    assert expected <= unlike(worker.digests, after)


async def test_an_adapter_kept_apart_is_covered_with_its_base(models: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = Path(shutil.copytree(models / "first", tmp_path / "base"))
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "adapter")
    with stage(base, reference=base, adapter=tmp_path / "adapter", merge_adapter=False, plugins=[PLUGIN]) as staged:
        for what in ("a factor of the adapter", "a weight below the adapter"):
            async with await start_worker(staged, limits=LIMITS) as worker:
                assert worker.digests is not None
                assert worker.digests.reference is None
                chat = {"messages": [{"role": "user", "content": "x"}], "max_new_tokens": 2, "on": "reference"}
                await worker.call("chat", chat, seed=0)
                assert await worker.digest() == worker.digests
                await worker.call("change", {"what": what}, seed=0)
                assert unlike(worker.digests, await worker.digest()) == {"target"}


async def test_before_hello_there_is_nothing_to_digest(staged: StagedTarget) -> None:
    async with Worker(await BACKEND.launch(staged.root, LIMITS), LIMITS) as worker:
        with pytest.raises((SandboxError, ToolError), match="hello must come first"):
            await worker.digest()
