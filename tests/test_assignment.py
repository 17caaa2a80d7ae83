"""Assign in blocks of equal size, balanced by reliability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgc.assignment import balanced_members, fractional_repetition_blocks, number_of_blocks, own_part


@given(st.data())
def test_every_shard_is_held_by_at_least_load_clients(data: st.DataObject) -> None:
    n_clients = data.draw(st.integers(1, 30))
    load = data.draw(st.integers(1, n_clients))
    n_shards = data.draw(st.integers(number_of_blocks(n_clients, load), 60))
    p = data.draw(st.lists(st.floats(0, 0.999), min_size=n_clients, max_size=n_clients))
    code = fractional_repetition_blocks(p, n_shards, load)
    matrix = code.encoding_matrix
    copies = matrix.sum(axis=0)
    assert matrix.shape == (n_clients, n_shards)
    assert copies.min() >= load
    assert copies.max() <= load + -(-(n_clients % load) // (n_clients // load))
    assert code.load == pytest.approx(copies.mean())
    sizes = [code.shards_of(client).size for client in range(n_clients)]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == -(-n_shards // (n_clients // load))
    for client in range(n_clients):
        np.testing.assert_array_equal(np.flatnonzero(matrix[client]), code.shards_of(client))
        np.testing.assert_array_equal(matrix[client, code.shards_of(client)], code.coefficients_of(client))


def test_reliable_clients_back_up_unreliable_ones() -> None:
    p = np.array([0.9, 0.9, 0.9, 0.1, 0.1, 0.1])
    members = balanced_members(p, 3)
    for block in range(3):
        assert sorted(p[members == block]) == [0.1, 0.9]


def test_balance_is_close_to_the_best_grouping() -> None:
    """All groupings of eight clients into four pairs; greedy may lose a little of the worst block, not more."""
    rng = np.random.default_rng(4)

    def pairings(items: list[int]) -> list[list[tuple[int, int]]]:
        if not items:
            return [[]]
        first, *rest = items
        return [
            [(first, other), *more] for other in rest for more in pairings([item for item in rest if item != other])
        ]

    for _ in range(20):
        p = rng.uniform(0.05, 0.95, 8)
        best = min(sum(p[a] * p[b] for a, b in pairing) for pairing in pairings(list(range(8))))
        members = balanced_members(p, 4)
        ours = sum(np.prod(p[members == block]) for block in range(4))
        # For pairs the best is to join the most with the least reliable client, and that is what greedy does.
        assert ours == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize(
    ("p", "n_shards", "load", "message"),
    [
        ([0.1, 0.1], 4, 3, r"load must be an integer from 1 to 2; got 3"),
        ([0.1, 0.1], 4, 0, r"load must be an integer from 1 to 2; got 0"),
        ([0.1] * 4, 1, 2, r"n_shards must be at least the number of blocks, n_clients // load = 2; got 1"),
        ([1.0, 0.1], 4, 1, r"straggle_prob must lie in \[0, 1\); got 1 for client 0"),
    ],
)
def test_impossible_assignments_are_refused(p: list[float], n_shards: int, load: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fractional_repetition_blocks(p, n_shards, load)


@given(st.integers(1, 12), st.integers(0, 40))
def test_own_parts_are_even_and_cover_the_shards(n_clients: int, n_shards: int) -> None:
    parts = [own_part(client, n_clients, n_shards) for client in range(n_clients)]
    assert [shard for part in parts for shard in part] == list(range(n_shards))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
