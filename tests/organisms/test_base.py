from __future__ import annotations

from pathlib import Path

import torch

from marple.tasks.organisms.base import BaseRecipe, train_base
from marple.tasks.organisms.cache import file_digests
from marple.tasks.organisms.checkpoints import load_model
from marple.tasks.organisms.training import one_thread

TINY = BaseRecipe(layers=1, d_model=32, heads=1, d_mlp=32, steps=3, warmup=1, batch_tokens=256)


def test_a_base_trains_to_a_checkpoint_with_the_same_bits_each_time(tmp_path: Path) -> None:
    record = train_base(tmp_path / "one", recipe=TINY)
    train_base(tmp_path / "two", recipe=TINY, work=tmp_path / "work")
    assert file_digests(tmp_path / "one") == file_digests(tmp_path / "two")
    assert record["recipe"]["steps"] == 3
    assert load_model(tmp_path / "one").config.hidden_size == 32


def test_training_leaves_the_threads_of_the_process_as_they_were() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with one_thread():
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (1, True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
