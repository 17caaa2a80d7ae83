"""Adapting an assignment during a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedgc.assignment import AssignmentConstraints, InfeasibleAssignmentError, assign, local_search, reassign
from tests.assignment_cases import check_valid, random_reach

PRICES: dict[str, Any] = {"round_seconds": 10.0, "rounds_left": 100, "seconds_per_shard": 1.0}
DEAR: dict[str, Any] = {**PRICES, "seconds_per_shard": 1e9}


@pytest.fixture(autouse=True)
def few_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not depend on how long the search goes on."""
    monkeypatch.setattr(local_search, "_MOST_SWEEPS", 100)


def smooth_reach(n_clients: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(1.5, 0.5, (n_clients, 1)))
    after = rng.uniform(0.6, 1, (n_clients, 1)) * np.exp(-((np.arange(1, 16) / rate) ** 2))
    return np.concatenate([np.ones((n_clients, 1)), after], axis=1)


def test_shards_moved_counts_copies_that_were_not_held() -> None:
    reach = smooth_reach(4, 0)
    old = assign(reach, 6, holders=2, schedule="full")
    assert old.shards_moved(old) == 0
    new = assign(smooth_reach(4, 1), 6, holders=2, schedule="full")
    expected = sum(len(set(new.shards_of(i).tolist()) - set(old.shards_of(i).tolist())) for i in range(4))
    assert new.shards_moved(old) == expected
    with pytest.raises(ValueError, match="old must have 4 clients and 6 shards; got 4 and 7"):
        new.shards_moved(assign(reach, 7, holders=2, schedule="full"))


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("n_clients", [8, 40])
def test_it_moves_only_if_the_gain_pays(schedule: str, n_clients: int) -> None:
    old = assign(smooth_reach(n_clients, 0), 2 * n_clients, holders=2, schedule=schedule)
    reach = smooth_reach(n_clients, 1)
    stay = reassign(old, reach, holders=2, **DEAR)
    assert stay.shards_moved(old) == 0
    np.testing.assert_array_equal(stay.block_of_shard, old.block_of_shard)
    check_valid(stay, reach, holders=2, schedule=schedule)
    free = reassign(old, reach, holders=2, **{**PRICES, "seconds_per_shard": 0.0})
    assert free.residual_error <= assign(reach, 2 * n_clients, holders=2, schedule=schedule).residual_error + 1e-12
    moved, gain = free.shards_moved(old), stay.residual_error - free.residual_error
    assert moved > 0
    assert gain > 0
    # The price at which the whole move just pays: seconds saved over the horizon per shard.
    even = 100 * 10.0 * gain / moved
    check_valid(free, reach, holders=2, schedule=schedule)
    for price in (0.5, 1.5):
        new = reassign(old, reach, holders=2, **{**PRICES, "seconds_per_shard": price * even})
        net = 1000.0 * (stay.residual_error - new.residual_error) - price * even * new.shards_moved(old)
        assert net >= max(0.0, (1 - price) * even * moved) - 1e-9
    late = reassign(old, reach, holders=2, **{**PRICES, "rounds_left": 0})
    assert late.shards_moved(old) == 0


def test_moves_are_matched_to_what_members_hold() -> None:
    """One pair swaps partners with another; the rest of the fleet must fetch nothing."""
    reach = np.repeat(smooth_reach(1, 0), 40, axis=0)
    old = assign(reach, 80, holders=2, schedule="full")
    new = reassign(old, reach, holders=2, **{**PRICES, "seconds_per_shard": 0.0})
    # All clients are alike, so any pairs are as good, and members that were together stay together or pay.
    assert new.residual_error <= old.residual_error * (1 + 1e-9)
    again = reassign(old, reach, holders=2, **PRICES)
    assert again.shards_moved(old) == 0


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_a_dead_clients_shards_stay_with_the_other_holders(schedule: str) -> None:
    reach = smooth_reach(9, 2)
    old = assign(reach, 18, holders=3, schedule=schedule)
    gone = int(np.flatnonzero(old.block_of_client >= 0)[0])
    alive = np.arange(9) != gone
    new = reassign(old, reach, holders=(1, 3), alive=alive, **DEAR)
    assert new.shards_moved(old) == 0
    assert new.block_of_client[gone] == -1
    assert new.lists[gone].size == 0
    check_valid(new, reach, holders=(1, 3), schedule=schedule)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_the_last_holders_shards_move_once_each(schedule: str) -> None:
    reach = smooth_reach(30, 3)
    old = assign(reach, 60, holders=1, schedule=schedule)
    gone = int(np.argmax(np.bincount(old.block_of_client[old.block_of_client >= 0][old.block_of_shard])))
    gone = int(np.flatnonzero(old.block_of_client == old.block_of_shard[0])[0])
    alive = np.arange(30) != gone
    new = reassign(old, reach, holders=1, alive=alive, **DEAR)
    assert new.shards_moved(old) == old.shards_of(gone).size
    for client in np.flatnonzero(alive):
        assert set(old.shards_of(client).tolist()) <= set(new.shards_of(client).tolist())
    check_valid(new, reach, holders=1, schedule=schedule)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_a_shard_that_cannot_arrive_does_not_hide_which_change_is_best(schedule: str) -> None:
    """Every finite error saves infinitely much against a shard that never comes; they still differ from each other."""
    old = assign(smooth_reach(30, 0), 60, holders=2, schedule=schedule)
    reach = smooth_reach(30, 1)
    # So few shards that a few single steps take them all away, which is one of the changes to choose from.
    fewest = min(old.blocks, key=lambda block: len(block.shards))
    reach[list(fewest.members), 1:] = 0.0
    best = assign(reach, 60, holders=2, schedule=schedule)
    free = reassign(old, reach, holders=2, **{**PRICES, "seconds_per_shard": 0.0})
    assert free.residual_error <= best.residual_error * (1 + 1e-12)
    dear = reassign(old, reach, holders=2, **DEAR)
    assert dear.shards_moved(old) < best.shards_moved(old)
    assert np.isfinite(dear.residual_error)
    late = reassign(old, reach, holders=2, **{**PRICES, "rounds_left": 0})
    assert late.shards_moved(old) == 0


def test_a_short_block_is_filled_from_idle_clients_or_dissolved() -> None:
    reach = np.repeat(smooth_reach(1, 4), 7, axis=0)
    old = assign(reach, 12, holders=2, schedule="full")
    idle = int(np.flatnonzero(old.block_of_client < 0)[0])
    block = int(old.block_of_shard[0])
    gone = old.blocks[block].members[0]
    alive = np.arange(7) != gone
    new = reassign(old, reach, holders=2, alive=alive, **DEAR)
    assert new.shards_moved(old) == len(old.blocks[block].shards)
    assert new.holders_of(0).tolist() == sorted([idle, old.blocks[block].members[1]])
    alive[idle] = False
    fewer = reassign(old, reach, holders=2, alive=alive, **DEAR)
    assert fewer.shards_moved(old) == 2 * len(old.blocks[block].shards)
    check_valid(fewer, reach, holders=2, schedule="full")


def test_residency_of_a_dead_clients_shards() -> None:
    reach = smooth_reach(5, 5)
    rules = AssignmentConstraints(residency=[([0, 1], [0, 1]), ([2], [2])], domain=list("abcde"))
    old = assign(reach, 8, holders=1, schedule="work-list", constraints=rules)
    holder = int(old.holders_of(0)[0])
    alive = np.arange(5) != holder
    new = reassign(old, reach, holders=1, constraints=rules, alive=alive, **PRICES)
    check_valid(new, reach, holders=1, schedule="work-list", constraints=rules)
    with pytest.raises(
        InfeasibleAssignmentError, match="residency must allow at least 1 clients for every shard; got 0 for shard 2"
    ) as caught:
        reassign(old, reach, holders=1, constraints=rules, alive=np.arange(5) != 2, **PRICES)
    assert caught.value.constraints == ("residency",)


@pytest.mark.parametrize("n_clients", [7, 30])
def test_random_losses_leave_valid_assignments(n_clients: int) -> None:
    rng = np.random.default_rng(6)
    for case in range(12):
        m, schedule = 2 * n_clients, ("full", "work-list")[case % 2]
        reach = random_reach(rng, n_clients, 12, 4.0)
        constraints = AssignmentConstraints(
            storage=rng.integers(8, 20, n_clients),
            domain=rng.integers(0, 5, n_clients),
            residency=[(range(3), range(0, n_clients, 2))] if case % 3 else None,
        )
        options: dict[str, Any] = {"holders": (1, 2), "constraints": constraints}
        if n_clients == 30 and case % 5:
            continue
        old = assign(reach, m, schedule=schedule, **options)
        alive = rng.random(n_clients) < 0.8
        alive[:5] = True
        new = reassign(old, reach, alive=alive, **options, **PRICES)
        assert (new.block_of_client[~alive] == -1).all()
        check_valid(new, reach, schedule=schedule, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reach": [[1, 0.5]]}, "reach must have a row for each of old's 4 clients; got 1"),
        ({"alive": [True]}, "alive must be 4 booleans, not all of them False"),
        ({"alive": np.zeros(4, dtype=bool)}, "alive must be 4 booleans, not all of them False"),
        ({"rounds_left": -1}, "rounds_left must be an integer of at least 0; got -1"),
        ({"seconds_per_shard": -1.0}, r"seconds_per_shard must lie in \[0, inf\)"),
        ({"round_seconds": np.inf}, r"round_seconds must lie in \[0, inf\)"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    reach = smooth_reach(4, 0)
    old = assign(reach, 4, holders=1, schedule="full")
    arguments: dict[str, Any] = {"reach": reach, "holders": 1, **PRICES, **change}
    with pytest.raises(ValueError, match=message):
        reassign(old, arguments.pop("reach"), **arguments)
