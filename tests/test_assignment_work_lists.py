"""Work lists of blocks: shares, orders and what extra holders are worth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedgc.assignment import assign
from fedgc.assignment.cost import missing_probability
from fedgc.assignment.quick_lists import cost_by_speed
from fedgc.assignment.work_list_order import best_lists, shares_by_speed, visiting_turns, work_list_cost
from fedgc.codes import FractionalRepetition, WorkLists

Case = tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


@st.composite
def blocks(draw: st.DrawFn, *, most_members: int = 5) -> Case:
    """Return reach, members, sizes and list limits of up to three blocks that have room for their shards."""
    width = draw(st.integers(1, 8))
    rows, tables = [], []
    counts = draw(st.lists(st.integers(1, most_members), min_size=1, max_size=3))
    n_clients = sum(counts)
    for _ in range(n_clients):
        steps = draw(st.lists(st.sampled_from([0.0, 0.2, 1.0]) | st.floats(0, 1), min_size=width, max_size=width))
        tables.append(np.concatenate(([1.0], np.cumprod(steps))))
    limits = np.array(draw(st.lists(st.integers(1, 9), min_size=n_clients, max_size=n_clients)))
    sizes, first = [], 0
    for count in counts:
        members = list(range(first, first + count))
        first += count
        sizes.append(draw(st.integers(1, int(limits[members].sum()))))
        rows.append(members + [n_clients] * (max(counts) - count))
    return np.array(tables), np.array(rows), np.array(sizes), limits


def own_shares(case: Case) -> NDArray[np.intp]:
    reach, members, sizes, limits = case
    speed = np.append((1.0 - missing_probability(reach, limits))[:-1, 1:].sum(axis=1), 0.0)
    return shares_by_speed(sizes, speed[members], np.minimum(np.append(limits, 0)[members], sizes[:, None]))


@given(blocks())
def test_the_quick_cost_is_that_of_lists_by_speed_ahead_first(case: Case) -> None:
    reach, members, sizes, limits = case
    miss = missing_probability(reach, limits)
    speed, limit = np.append((1.0 - miss[:-1, 1:]).sum(axis=1), 0.0), np.append(limits, 0)
    turns = visiting_turns(own_shares(case), speed[members], members < limits.size)
    slow = work_list_cost(miss, members, own_shares(case), turns)
    np.testing.assert_allclose(cost_by_speed(miss, members, sizes, speed, limit), slow, rtol=1e-12)


@given(blocks())
@settings(max_examples=80, deadline=None)
def test_more_holders_never_cost_more_than_load_one(case: Case) -> None:
    """Compared with the same shards in the same shares by speed, every one with its owner only."""
    reach, members, sizes, limits = case
    miss = missing_probability(reach, limits)
    speed = np.append((1.0 - miss[:-1, 1:]).sum(axis=1), 0.0)
    shares, turns, cost = best_lists(miss, members, sizes, speed, np.append(limits, 0))
    alone = own_shares(case)
    for row in range(sizes.size):
        single = work_list_cost(
            miss, members[row][:, None], alone[row][:, None], np.zeros((members.shape[1], 1, 1), np.intp)
        )
        assert cost[row] <= single.sum() * (1 + 1e-9)
        # Started from these shares, every way to visit is already no worse.
        for way in ("ahead first", "behind first", "same order"):
            present = members < reach.shape[0]
            visits = visiting_turns(alone, speed[members], present, way)
            assert work_list_cost(miss, members, alone, visits)[row] <= single.sum() * (1 + 1e-9)
    assert shares.sum(axis=1).tolist() == sizes.tolist()
    assert (shares <= np.append(limits, 0)[members]).all()
    np.testing.assert_allclose(work_list_cost(miss, members, shares, turns), cost, rtol=1e-12)
    for row, slot in zip(*np.nonzero(members < reach.shape[0]), strict=True):
        visited = turns[row, slot][members[row] < reach.shape[0]]
        assert sorted(visited.tolist()) == list(range(visited.size))
        assert turns[row, slot, slot] == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 20)), min_size=1, max_size=8), st.floats(0, 1))
def test_shares_by_speed_are_largest_remainders_within_limits(clients: list[tuple[float, int]], part: float) -> None:
    speed, limit = np.array([s for s, _ in clients]), np.array([most for _, most in clients])
    size = int(part * limit.sum())
    shares = shares_by_speed(np.array([size]), speed[None], limit[None])[0]
    assert shares.sum() == size
    assert (shares <= limit).all()
    quota = size * speed / speed.sum() if speed.sum() > 1e-3 else np.zeros_like(speed)
    if (quota < limit).all() and speed.sum() > 1e-3:
        assert (np.abs(shares - quota) < 1 + 1e-5).all()


def test_two_members_work_from_both_ends() -> None:
    """With two equal members the best order is each other's reverse; all orders of four shards are tried."""
    reach = np.array([[1.0, 0.9, 0.6, 0.4, 0.1]] * 2)
    found = assign(reach, 4, holders=2, schedule="work-list")
    assert found.lists[0].tolist() == found.lists[1].tolist()[::-1]
    best = np.inf
    for order in itertools.permutations(range(4)):
        missed = np.array([(1 - reach[0, 1 + j]) * (1 - reach[1, 1 + order[j]]) for j in range(4)])
        best = min(best, float(1.0 / (1.0 - missed.mean()) - 1.0))
    assert found.residual_error == pytest.approx(best, rel=1e-12)


def test_lists_are_near_the_best_of_all_orders_for_three_members() -> None:
    """Three members, four shards, all orders of two members (the first one's is free by symmetry)."""
    rng = np.random.default_rng(0)
    orders = np.array(list(itertools.permutations(range(4)))) + 1
    excess = []
    for _ in range(40):
        reach = np.concatenate([np.ones((3, 1)), np.sort(rng.uniform(0.02, 0.98, (3, 4)))[:, ::-1]], axis=1)
        missed = (1 - reach[0, orders[0]])[None, None] * (1 - reach[1, orders])[:, None] * (1 - reach[2, orders])[None]
        best = 4.0 * (1.0 / (1.0 - missed.mean(axis=-1).min()) - 1.0)
        miss = missing_probability(reach, None)
        cost = best_lists(
            miss, np.array([[0, 1, 2]]), np.array([4]), np.append(reach[:, 1:].sum(axis=1), 0), np.array([4, 4, 4, 0])
        )[2][0]
        assert cost >= best * (1 - 1e-9)
        excess.append(cost / best - 1)
    # The form of the lists, own share first and others' shares whole and reversed, is what this costs.
    assert np.mean(excess) < 0.1


def test_helpers_start_apart_and_the_fastest_with_the_share_furthest_behind() -> None:
    shares, speed = np.array([[3, 3, 3]]), np.array([[9.0, 1.0, 3.0]])
    turns = visiting_turns(shares, speed, np.ones((1, 3), dtype=bool))[0]
    starts = [int(np.flatnonzero(turn == 1)[0]) for turn in turns]
    assert starts[0] == 1  # the fastest helps the slowest
    assert sorted(starts) == [0, 1, 2]


def test_conversion_to_codes() -> None:
    reach = np.array([[1, 0.9, 0.6, 0.4, 0.1], [1, 0.9, 0.6, 0.4, 0.1], [1, 0.0, 0.0, 0.0, 0.0]])
    full = assign(reach, 3, holders=1, schedule="full")
    code, active = full.code()
    assert isinstance(code, FractionalRepetition)
    assert active.tolist() == [0, 1]
    assert full.block_of_client.tolist()[2] == -1
    assert full.shards_of(2).tolist() == full.lists[2].tolist() == []
    pairs = assign(reach, 4, holders=2, schedule="work-list")
    segments = {}
    for kind in ("shard", "share", "whole"):
        code, active = pairs.code(segments=kind)
        assert isinstance(code, WorkLists)
        assert active.tolist() == [0, 1]
        segments[kind] = [[part.tolist() for part in code.segments_of(client)] for client in range(2)]
        assert [code.shards_of(client).tolist() for client in range(2)] == [
            pairs.lists[client].tolist() for client in active
        ]
    assert segments["shard"][0] == [[0], [1], [3], [2]]
    assert segments["share"] == [[[0, 1], [3, 2]], [[2, 3], [1, 0]]]
    assert segments["whole"][0] == [[0, 1, 3, 2]]
    with pytest.raises(ValueError, match="segments must be one of shard, share, whole; got 'block'"):
        pairs.code(segments="block")
