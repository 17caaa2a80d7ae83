"""Shards in a row: batches across their borders."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from fedgc.clients import RowOfShards
from fedgc.clients.encode import Budget
from flwr.app import ConfigRecord

from fedgc.protocol import BUDGET, SIMULATED_PROGRESS
from tests.row_cases import EXAMPLES, PIECES, SIZES


def row_of(piece_ids: list[int], progress: int | None = None) -> RowOfShards:
    budget = Budget(ConfigRecord({} if progress is None else {SIMULATED_PROGRESS: progress}))
    return RowOfShards(piece_ids, PIECES, budget, seed_of=lambda shard: 7 + shard)


@pytest.mark.parametrize(("size", "epochs"), [(1, 1), (4, 1), (5, 3), (100, 2)])
def test_every_example_of_a_piece_comes_once_an_epoch(size: int, epochs: int) -> None:
    row = row_of([11, 0, 4, 2, 6, 1, 8, 9, 3, 10, 7, 5])
    batches = list(row.batches(EXAMPLES.__getitem__, size=size, epochs=epochs))
    assert all(batch.size == size for batch in batches[:-1]) and 0 < batches[-1].size <= size
    np.testing.assert_array_equal(
        np.sort(np.concatenate(batches)), np.sort(np.repeat(np.concatenate(EXAMPLES), epochs))
    )
    assert row.examples == [SIZES[piece] for piece in [11, 0, 4, 2, 6, 1, 8, 9, 3, 10, 7, 5]]


def test_pieces_divide_one_order_whoever_does_them() -> None:
    """The parts of two clients that do different pieces of a shard are together what one does that has them all."""
    own = [np.concatenate(list(row_of([piece]).batches(EXAMPLES.__getitem__, size=3))) for piece in (9, 10, 11)]
    whole = np.concatenate(list(row_of([9, 10, 11]).batches(EXAMPLES.__getitem__, size=4)))
    np.testing.assert_array_equal(np.concatenate(own), whole)
    assert not np.array_equal(whole, EXAMPLES[3])


def test_what_is_begun_ends_with_the_deadline() -> None:
    row = row_of([0, 3, 9], progress=2)
    assert np.concatenate(list(row.batches(EXAMPLES.__getitem__, size=4))).size == SIZES[0] + SIZES[3]
    assert row.examples == [SIZES[0], SIZES[3]]
    nothing = row_of([0, 3], progress=0)
    assert list(nothing.batches(EXAMPLES.__getitem__, size=4)) == [] and nothing.num_examples == 0


@pytest.mark.parametrize(("size", "pause"), [(1, 0.1), (9, 0.4)])
def test_a_budget_in_real_time_ends_the_row(size: int, pause: float) -> None:
    """Also where many pieces make a batch, which has to end in time with all that wait for it."""
    budget = Budget(ConfigRecord({BUDGET: 0.9}))
    row = RowOfShards(list(range(36)), PIECES, budget, seed_of=lambda shard: shard)
    for batch in row.batches(lambda shard: range(3), size=size):
        time.sleep(pause * batch.size / size)
    work, busy = budget.spent(len(row.examples))
    assert 2 <= len(row.examples) < 36 and work <= busy < 1.2


def test_batches_are_asked_for_once() -> None:
    row = row_of([0, 1])
    list(row.batches(EXAMPLES.__getitem__, size=4))
    with pytest.raises(ValueError, match="batches must be asked for once, with epochs= for more than one pass"):
        next(row.batches(EXAMPLES.__getitem__, size=4))


@pytest.mark.parametrize("examples", [np.ones(3), np.ones((2, 2), dtype=int), np.array([True, False])])
def test_examples_are_numbers(examples: Any) -> None:
    with pytest.raises(ValueError, match=r"^examples_of\(0\) must be a row of whole numbers"):
        next(row_of([0]).batches(lambda shard: examples, size=4))


@pytest.mark.parametrize(("size", "epochs", "named"), [(0, 1, "size"), (3, 0, "epochs"), (2.5, 1, "size")])
def test_batches_that_cannot_be(size: Any, epochs: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} must be"):
        next(row_of([0]).batches(EXAMPLES.__getitem__, size=size, epochs=epochs))
