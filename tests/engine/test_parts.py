"""The engine's small parts on their own: edits as data, rows of memory, batches of like lengths."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.tools.engine.batches import alike, common_prefix
from marple.tools.engine.edits import EditTable, RowWindow
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site
from marple.tools.engine.slots import Slots
from tests.engine.reference import touches
from tests.engine.small import WIDTH, vector
from tests.engine.strategies import interventions

PROFILE = settings.get_profile("engine")
CPU = torch.device("cpu")
EDIT = Intervention(Site(1, "resid_post"), vector(1), positions=(0, -1))

# ------------------------------------------------------------------------------- edits as data


def test_the_fingerprint_differs_when_anything_differs() -> None:
    nudged = EDIT.vector.clone()
    nudged[3] = torch.nextafter(nudged[3], torch.tensor(9.0))
    others = [
        replace(EDIT, site=Site(0, "resid_post")),
        replace(EDIT, site=Site(1, "resid_mid")),
        replace(EDIT, vector=nudged),
        replace(EDIT, vector=EDIT.vector.expand(2, -1)),
        replace(EDIT, op="norm_add"),
        replace(EDIT, scale=1.0000001),
        replace(EDIT, scale=-1.0),
        replace(EDIT, phases=("prompt",)),
        replace(EDIT, phases=("generation",)),
        replace(EDIT, positions=None),
        replace(EDIT, positions=()),
        replace(EDIT, positions=(0,)),
        replace(EDIT, exclude_positions=(0, -1)),
        replace(EDIT, tokens=(0, -1)),
        replace(EDIT, tokens=()),
        replace(EDIT, exclude_tokens=(0, -1)),
        replace(EDIT, generation_window=(0, None)),
        replace(EDIT, generation_window=(0, 1)),
    ]
    assert len({EDIT.fingerprint, *(one.fingerprint for one in others)}) == len(others) + 1
    assert len({EDIT, *others}) == len(others) + 1


def test_equal_edits_are_equal_whatever_tensor_holds_the_vector() -> None:
    wide = torch.stack([EDIT.vector, EDIT.vector], dim=1)
    for same in (EDIT.vector.clone(), EDIT.vector.double(), wide[:, 0]):
        other = replace(EDIT, vector=same)
        assert other == EDIT
        assert hash(other) == hash(EDIT)
    assert len(EDIT.fingerprint) == 32


@settings(PROFILE, max_examples=200)
@given(data=st.data(), length=st.integers(1, 9), said=st.integers(0, 6))
def test_where_an_edit_applies(data: st.DataObject, length: int, said: int) -> None:
    edit = data.draw(interventions(length))
    tokens = data.draw(st.lists(st.integers(2, 30), min_size=length + said, max_size=length + said))
    for position, token in enumerate(tokens):
        assert edit.applies(position, token, length) == touches(edit, position, token, length)


@settings(PROFILE, max_examples=80)
@given(data=st.data())
def test_a_table_edits_each_row_as_if_alone(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4))
    windows, kept = [], EditTable(CPU)
    for _ in range(rows):
        length = data.draw(st.integers(1, 8))
        edits = tuple(replace(one, site=EDIT.site) for one in data.draw(st.lists(interventions(length), max_size=3)))
        start = data.draw(st.integers(0, length + 2))
        tokens = tuple(data.draw(st.lists(st.integers(2, 30), min_size=1, max_size=5)))
        windows.append(RowWindow(edits, length, start, tokens))
    width = max(len(window.tokens) for window in windows)
    hidden = torch.randn(rows, width, WIDTH, generator=torch.Generator().manual_seed(0))
    together = kept.plan(windows).get(EDIT.site.place)
    found = hidden if together is None else together.apply(hidden)
    for row, window in enumerate(windows):
        own = EditTable(CPU).plan([window]).get(EDIT.site.place)
        mine = hidden[row : row + 1, : len(window.tokens)]
        expected = mine if own is None else own.apply(mine)
        torch.testing.assert_close(found[row, : len(window.tokens)], expected[0], rtol=0, atol=1e-5)
        assert torch.equal(found[row, len(window.tokens) :], hidden[row, len(window.tokens) :])


def test_a_kept_plan_follows_its_rows() -> None:
    # What is kept between steps must go when a row leaves, moves, or comes to another token.
    table = EditTable(CPU)
    edits = [(Intervention(EDIT.site, vector(at), tokens=(5,), phases=("generation",)),) for at in range(3)]
    hidden = torch.zeros(3, 1, WIDTH)

    def step(rows: list[int], tokens: list[int]) -> torch.Tensor:
        windows = [RowWindow(edits[row], 2, 4, (token,)) for row, token in zip(rows, tokens, strict=True)]
        made = table.plan(windows).get(EDIT.site.place)
        return hidden[: len(rows)] if made is None else made.apply(hidden[: len(rows)])

    for rows, tokens in [
        ([0, 1, 2], [5, 5, 5]),
        ([0, 1, 2], [5, 6, 5]),
        ([0, 1, 2], [5, 5, 5]),
        ([2, 1], [5, 5]),
        ([1, 2], [5, 5]),
        ([1, 2], [6, 6]),
        ([0], [5]),
    ]:
        for found, row, token in zip(step(rows, tokens), rows, tokens, strict=True):
            torch.testing.assert_close(found[0], vector(row) if token == 5 else torch.zeros(WIDTH))


# ------------------------------------------------------------------------------- slots


def keys(rows: int, width: int, mark: float = 0.0) -> torch.Tensor:
    """Each value says its row and its place: ``(row, head, width, head_dim)``."""
    place = torch.arange(rows).view(-1, 1, 1, 1) * 100.0 + torch.arange(width).view(1, 1, -1, 1) + mark
    return place.expand(rows, 2, width, 3).clone()


def test_rows_of_different_lengths_are_written_and_read_where_they_belong() -> None:
    slots = Slots(2, CPU)
    slots.open([0, 0, 0], [4, 2, 3])
    for layer in range(2):
        slots.update(keys(3, 4), keys(3, 4, 0.5), layer)
    slots.open([4, 2, 3], [1, 1, 1])
    assert slots.position_ids.tolist() == [[4], [2], [3]]
    found, values = slots.update(keys(3, 1, 1000), keys(3, 1, 2000), 1)
    assert found.shape == (3, 2, 5, 3)
    assert found[0, 0, :, 0].tolist() == [0, 1, 2, 3, 1000]
    assert found[1, 0, :3, 0].tolist() == [100, 101, 1100]
    assert found[2, 0, :4, 0].tolist() == [200, 201, 202, 1200]
    assert values[2, 0, :4, 0].tolist() == [200.5, 201.5, 202.5, 2200]
    mask = slots.mask(torch.float32, None)[:, 0, 0] == 0
    assert mask.tolist() == [[True] * 5, [True, True, True, False, False], [True, True, True, True, False]]
    windowed = slots.mask(torch.float32, 2)[:, 0, 0] == 0
    assert windowed.tolist() == [
        [False, False, False, True, True],
        [False, True, True, False, False],
        [False, False, True, True, False],
    ]


def test_padding_stays_within_a_rows_own_positions() -> None:
    slots = Slots(1, CPU)
    slots.open([5, 2, 9], [1, 3, 0])
    assert slots.position_ids.tolist() == [[5, 5, 5], [2, 3, 4], [8, 8, 8]]


def test_what_is_stored_survives_growing_moving_and_taking() -> None:
    slots = Slots(1, CPU, grain=4)
    slots.reserve(2, 3)
    slots.open([0, 0], [3, 3])
    slots.update(keys(2, 3), keys(2, 3), 0)
    slots.reserve(5, 70)
    slots.move(1, 4, 3)
    slots.move(0, 0, 3)
    [(taken, _)] = slots.take(4, 3)
    assert taken[0, :, 0].tolist() == [100, 101, 102]
    [(first, _)] = slots.take(0, 3)
    assert first[0, :, 0].tolist() == [0, 1, 2]
    other = Slots(1, CPU, grain=1)
    other.reserve(1, 3)
    other.put(0, slots.take(4, 3), 2)
    [(put, _)] = other.take(0, 3)
    assert put[0, :, 0].tolist() == [100, 101, 0]


def test_nothing_infinite_is_left_behind_a_row() -> None:
    slots = Slots(1, CPU)
    slots.open([0, 0], [6, 6])
    slots.update(keys(2, 6) * float("inf"), keys(2, 6) * float("nan"), 0)
    clean = [(torch.ones(2, 2, 3), torch.ones(2, 2, 3))]
    slots.put(0, clean, 2)
    slots.open([2], [1])
    found, values = slots.update(torch.ones(1, 2, 1, 3), torch.ones(1, 2, 1, 3), 0)
    assert bool(torch.isfinite(found).all())
    slots.open([2, 6], [1, 1])
    found, values = slots.update(torch.ones(2, 2, 1, 3), torch.ones(2, 2, 1, 3), 0)
    assert bool(torch.isfinite(found[0]).all())
    assert bool(torch.isfinite(values[0]).all())


# ------------------------------------------------------------------------------- batches

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=40)


@settings(PROFILE, max_examples=100)
@given(lengths=LENGTHS, budget=st.integers(1, 3000), most=st.none() | st.integers(1, 10))
def test_a_batch_holds_the_first_keeps_order_and_budget(lengths: list[int], budget: int, most: int | None) -> None:
    items = list(enumerate(lengths))
    length: Callable[[tuple[int, int]], int] = lambda item: item[1]  # noqa: E731
    batch = alike(items, length, budget=budget, most=most)
    assert items[0] in batch
    assert batch == sorted(set(batch))
    assert most is None or len(batch) <= most
    if len(batch) > 1:
        assert max(map(length, batch)) * len(batch) <= budget
    padding = max(map(length, batch)) * len(batch) - sum(map(length, batch))
    assert padding <= max(256, sum(map(length, batch)) // 4)


@settings(PROFILE, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 1), max_size=6).map(tuple), min_size=1, max_size=6))
def test_the_common_beginning(rows: list[tuple[int, ...]]) -> None:
    shared = common_prefix(rows)
    assert len({row[:shared] for row in rows}) == 1
    assert shared == min(map(len, rows)) or len({row[: shared + 1] for row in rows}) > 1


@pytest.mark.parametrize("grain", [1, 64])
def test_a_slots_memory_is_what_was_asked_for(grain: int) -> None:
    slots = Slots(1, CPU, grain=grain)
    assert slots.bytes == 0
    slots.reserve(3, 10)
    slots.put(0, [(torch.ones(2, 10, 3), torch.ones(2, 10, 3))], 10)
    assert slots.bytes == 2 * 3 * 2 * (10 if grain == 1 else 64) * 3 * 4
    assert not slots.is_wasteful(3, 10)
    slots.reserve(500, 200)
    assert slots.is_wasteful(3, 10)
