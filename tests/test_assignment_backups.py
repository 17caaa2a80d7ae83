"""Backups: nobody is left idle on work lists, and the prediction follows the lists."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.assignment import assign, longest_list, missed_prob, own_share, residual_error, with_backups
from tests.assignment_cases import check_valid, random_reach

REACH = np.array([[1.0, 0.9, 0.8, 0.1], [1.0, 0.5, 0.4, 0.3], [1.0, 0.6, 0.2, 0.0]])


def test_missed_by_hand() -> None:
    pair = assign(REACH[:2], 3, holders=2, schedule="work-list")
    expected = np.ones(3)
    for client, order in enumerate(pair.lists):
        for place, shard in enumerate(order, start=1):
            expected[shard] *= 1.0 - REACH[client, place]
    assert sorted(order.size for order in pair.lists) == [3, 3]
    np.testing.assert_allclose(missed_prob(pair, REACH), expected, rtol=1e-14)
    assert residual_error(pair, REACH) == pytest.approx(1.0 / (1.0 - expected.mean()) - 1.0, rel=1e-14)
    assert pair.residual_error == pytest.approx(residual_error(pair, REACH), rel=1e-12)


def test_missed_on_one_list_is_one_minus_reach() -> None:
    alone = assign(REACH[:1], 3, holders=1, schedule="work-list")
    assert missed_prob(alone, REACH)[alone.lists[0]].tolist() == pytest.approx([0.1, 0.2, 0.9])
    # Places that `reach` does not go up to are never got to: every shard is then seldom done, since they change places.
    assert missed_prob(alone, REACH[:, :2])[alone.lists[0]].tolist() == pytest.approx([0.1, 1.0, 1.0])
    assert residual_error(alone, REACH[:, :2]) == pytest.approx(3.0 / 0.9 - 1.0)
    assert residual_error(alone, np.array([[1.0, 0.0]])) == np.inf


def test_the_own_share_is_what_comes_before_the_others() -> None:
    reach = np.tile([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], (2, 1))
    pair = assign(reach, 6, holders=2, schedule="work-list")
    assert [own_share(pair, client) for client in (0, 1)] == [3, 3]
    with pytest.raises(ValueError, match="client must be an integer from 0 to 1"):
        own_share(pair, 2)


def test_lists_are_worked_out_for_six_times_the_mean() -> None:
    assert longest_list(100, 50, 2) == 6 * 4 + 4
    assert longest_list(10, 3, 1) == 10
    assert longest_list(1000, 300, 1) == 20 + 4


@pytest.mark.parametrize("seed", range(40))
def test_nobody_stays_idle_and_nothing_gets_worse(seed: int) -> None:
    rng = np.random.default_rng([9, seed])
    n, holders = int(rng.integers(3, 7)), int(rng.integers(1, 4))
    m = int(rng.integers(2 * n // holders, 3 * n))
    reach = random_reach(rng, n, m, 2.0 * m / n)
    # The last one never gets anything done: without backups it would rarely be asked.
    reach[-1, 1:] = 0.0 if seed % 2 else reach[-1, 1:]
    before = assign(reach, m, holders=min(holders, n), schedule="work-list")
    after = with_backups(before, reach)
    assert (after.block_of_client >= 0).all()
    assert after.residual_error <= before.residual_error * (1 + 1e-12)
    assert after.residual_error == pytest.approx(residual_error(after, reach), rel=1e-12)
    check_valid(after, reach, holders=(1, n), schedule="work-list")
    for client in np.flatnonzero(before.block_of_client >= 0):
        # Those that were in it are not disturbed.
        assert after.lists[client].tolist() == before.lists[client].tolist()
        assert own_share(after, int(client)) == own_share(before, int(client))
    for client in np.flatnonzero(before.block_of_client < 0):
        assert own_share(after, int(client)) == 0
    assert np.array_equal(after.block_of_shard, before.block_of_shard)


def test_those_over_from_pairs_begin_with_what_is_missed_most() -> None:
    reach = np.array([[1.0, 0.9, 0.7, 0.5, 0.3]] * 3)
    before = assign(reach, 4, holders=2, schedule="work-list")
    (idle,) = np.flatnonzero(before.block_of_client < 0)
    after = with_backups(before, reach)
    missed = missed_prob(before, reach)
    order = after.lists[idle]
    assert missed[order[0]] == missed.max()
    assert (np.diff(missed[order]) <= 0).all()
    assert after.residual_error < before.residual_error


def test_the_full_schedule_stays_as_it_is() -> None:
    full = assign(REACH, 3, holders=2, schedule="full")
    assert (full.block_of_client < 0).any()
    assert with_backups(full, REACH) is full


def test_nobody_idle_means_nothing_to_do() -> None:
    pair = assign(REACH[:2], 3, holders=2, schedule="work-list")
    assert with_backups(pair, REACH[:2]) is pair


def test_what_can_never_arrive_stays_infinite() -> None:
    reach = np.array([[1.0, 0.0, 0.0, 0.0]] * 3)
    before = assign(reach, 3, holders=2, schedule="work-list")
    after = with_backups(before, reach)
    assert before.residual_error == after.residual_error == np.inf
