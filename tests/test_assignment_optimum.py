"""Assign: against the exact optimum, against exact decoding, and on large fleets."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fedgc.arrivals import IndependentArrivals, ProgressArrivals
from fedgc.assignment import (
    AssignmentConstraints,
    InfeasibleAssignmentError,
    assign,
    fractional_repetition_blocks,
    local_search,
    solve_exactly,
)
from fedgc.codes import WorkLists
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.gram import GramModel
from tests.assignment_cases import check_valid, random_instance, random_reach


@pytest.fixture
def few_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not depend on how long the search goes on."""
    monkeypatch.setattr(local_search, "_MOST_SWEEPS", 100)


def test_assign_is_within_two_percent_of_the_optimum() -> None:
    """On 200 random small instances; where none is feasible, both say so and blame the same constraints."""
    rng = np.random.default_rng(0)
    solved = refused = hopeless = 0
    while solved < 200:
        reach, m, options = random_instance(rng)
        try:
            best = solve_exactly(reach, m, **options)
        except InfeasibleAssignmentError as error:
            if refused < 20:  # to say which constraint is to blame takes longer than to solve
                with pytest.raises(InfeasibleAssignmentError) as ours:
                    assign(reach, m, **options)
                assert ours.value.constraints == error.constraints
            refused += 1
            continue
        found = assign(reach, m, **options)
        for result in (best, found):
            check_valid(result, reach, **options)
        solved += 1
        hopeless += np.isinf(best.residual_error)
        assert best.residual_error <= found.residual_error * (1 + 1e-6)
        if np.isfinite(best.residual_error):
            assert found.residual_error <= best.residual_error * 1.02 + 1e-12
    assert refused > 10
    assert 2 < hopeless < 60


def test_the_optimum_is_that_of_all_assignments() -> None:
    """Four clients and four shards: every map of clients to blocks and of shards to blocks."""
    rng = np.random.default_rng(1)
    for _ in range(4):
        reach = random_reach(rng, 4, 5, 2.0)
        storage = rng.integers(2, 5, 4)
        rules = [([0], [0, 1, 2])]
        best = np.inf
        for blocks in itertools.product(range(-1, 3), repeat=4):
            for shards in itertools.product(range(3), repeat=4):
                cost = 0.0
                for block in set(shards):
                    size = shards.count(block)
                    members = [client for client in range(4) if blocks[client] == block]
                    legal = len(members) in (1, 2) and size <= storage[members].min()
                    if not legal or (shards[0] == block and not set(members) <= {0, 1, 2}):
                        cost = np.inf
                        break
                    missed = np.prod(1.0 - reach[members, size])
                    cost += size * missed / (1.0 - missed) if missed < 1.0 else np.inf
                best = min(best, cost)
        constraints = AssignmentConstraints(storage=storage, residency=rules)
        found = solve_exactly(reach, 4, holders=(1, 2), schedule="full", constraints=constraints)
        assert found.residual_error == pytest.approx(best / 4, rel=1e-9)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_the_prediction_is_the_optimal_decoders(schedule: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        reach = random_reach(rng, 6, 9, 4.0)
        found = assign(reach, 9, holders=(1, 3), schedule=schedule)
        if np.isinf(found.residual_error):
            continue
        code, active = found.code()
        if isinstance(code, WorkLists):
            lengths = [found.lists[client].size for client in active]
            done = [
                np.append(-np.diff(reach[client, : length + 1]), reach[client, length])
                for client, length in zip(active, lengths, strict=True)
            ]
            arrivals: Any = ProgressArrivals(code, done)
        else:
            arrivals = IndependentArrivals(
                [1.0 - reach[client, len(found.blocks[found.block_of_client[client]].shards)] for client in active]
            )
        gram = GramModel(np.ones(9), np.zeros(9))
        exact = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram).residual_error
        assert found.residual_error == pytest.approx(exact, rel=1e-8, abs=1e-12)


def test_one_holder_is_optimal_resource_allocation() -> None:
    """With one holder and convex costs, giving shard after shard to the cheapest client is optimal, at any scale."""
    rng = np.random.default_rng(3)
    n, m = 300, 900
    done = np.arange(1, 31)
    rate = np.exp(rng.normal(1.2, 0.5, (n, 1)))
    reach = np.concatenate([np.ones((n, 1)), rng.uniform(0.5, 1, (n, 1)) * 0.9 ** (done / rate)], axis=1)
    cost = done**2 / np.cumsum(reach[:, 1:], axis=1) - done
    marginal = np.sort(np.diff(cost, axis=1, prepend=0.0), axis=None)
    found = assign(reach, m, holders=1, schedule="work-list")
    assert found.residual_error == pytest.approx(marginal[:m].sum() / m, rel=1e-3)
    check_valid(found, reach, holders=1, schedule="work-list")


@pytest.mark.usefixtures("few_sweeps")
@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("holders", [1, 2, 3, (2, 3)])
def test_large_fleets_meet_all_constraints(schedule: str, holders: int | tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    n, m = 120, 270
    reach = random_reach(np.random.default_rng(6), n, 12, 4.0)
    limits = AssignmentConstraints(
        storage=rng.integers(7, 14, n),
        computation=rng.integers(6, 14, n),
        domain=rng.integers(0, 9, n),
        residency=[(range(20), range(40)), (range(20, 30), range(25, 60)), ([70], [3, 4, 5, 100])],
    )
    options: dict[str, Any] = {"holders": holders, "schedule": schedule, "constraints": limits}
    found = assign(reach, m, **options)
    check_valid(found, reach, **options)
    if schedule == "full":
        again = assign(reach, m, **options)
        np.testing.assert_array_equal(found.block_of_client, again.block_of_client)
        np.testing.assert_array_equal(found.list_shards, again.list_shards)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_the_search_ends_when_nothing_improves(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that are all alike: whatever is offered is no better than pairs of equal size."""
    kept: list[bool] = []
    sweep = local_search._sweep
    monkeypatch.setattr(local_search, "_sweep", lambda *given: kept.append(sweep(*given)) or kept[-1])
    monkeypatch.setattr(local_search, "_WARMTH", 0.0)
    reach = np.repeat([[1.0, 0.9, 0.8, 0.7, 0.5, 0.2, 0.1, 0.0]], 40, axis=0)
    found = assign(reach, 80, holders=2, schedule=schedule)
    assert not any(kept)
    assert len(kept) == local_search._PATIENCE
    assert {len(block.shards) for block in found.blocks} == {4}


def test_the_search_beats_blocks_of_equal_size() -> None:
    """Balanced fractional repetition is one of the full schedule's assignments; choosing sizes as well gains."""
    rng = np.random.default_rng(5)
    n, m = 60, 120
    done = np.arange(1, 21)
    rate = np.exp(rng.normal(np.log(8), 0.5, (n, 1)))
    reach = np.concatenate([np.ones((n, 1)), rng.uniform(0.6, 1, (n, 1)) * np.exp(-((done / rate) ** 3))], axis=1)
    code = fractional_repetition_blocks(1.0 - reach[:, 4], m, 2)
    missed = np.array([np.prod(1.0 - reach[code.blocks.of_client == block, 4]) for block in range(30)])
    equal = float((missed / (1.0 - missed)).mean())
    found = assign(reach, m, holders=2, schedule="full")
    lists = assign(reach, m, holders=2, schedule="work-list")
    assert lists.residual_error < found.residual_error < 0.7 * equal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reach": [1.0, 0.5]}, r"reach must have shape \(n_clients, K \+ 1\) with K of at least 1; got shape \(2,\)"),
        ({"reach": [[1.0, 1.5]]}, r"reach must lie in \[0, 1\]; got \[1.0, 1.5\] for client 0"),
        ({"reach": [[1.0, np.nan]]}, r"reach must lie in \[0, 1\]; got \[1.0, nan\] for client 0"),
        ({"reach": [[1.0, 0.5], [0.9, 0.5]]}, r"reach must begin with 1.*got \[0.9, 0.5\] for client 1"),
        ({"reach": [[1.0, 0.2, 0.3]]}, r"reach must never rise .* got \[1.0, 0.2, 0.3\] for client 0"),
        ({"n_shards": 0}, r"n_shards must be an integer of at least 1; got 0"),
        ({"holders": 0}, r"holders must be an integer of at least 1; got 0"),
        ({"holders": (2, 1)}, r"holders' upper limit must be an integer of at least 2; got 1"),
        ({"schedule": "lazy"}, r"schedule must be one of full, work-list; got 'lazy'"),
        ({"constraints": {"storage": [1]}}, r"constraints must be AssignmentConstraints; got dict"),
        (
            {"constraints": AssignmentConstraints(storage=[1])},
            r"storage must have one entry per client, 2; got 1",
        ),
        (
            {"constraints": AssignmentConstraints(residency={9: [0]})},
            r"residency's shards must be an integer from 0 to 3; got 9",
        ),
        (
            {"constraints": AssignmentConstraints(residency={0: [2]})},
            r"residency's clients must be an integer from 0 to 1; got 2",
        ),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"reach": [[1.0, 0.5]] * 2, "n_shards": 4, "holders": 1, "schedule": "full", **change}
    for method in (assign, solve_exactly):
        with pytest.raises(ValueError, match=message):
            method(arguments["reach"], **{key: value for key, value in arguments.items() if key != "reach"})


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_blocks_of_two_or_three_of_eight_clients_are_near_the_optimum_too(schedule: str) -> None:
    """Where absence decides, many assignments are stuck between two blocks that no exchange of theirs improves."""
    gaps = []
    for case in range(20):
        rng = np.random.default_rng([5, case])
        n_shards = int(rng.integers(5, 12))
        pace = rng.lognormal(0.0, 1.0, (8, 1)) * 1.5 * n_shards / 8
        after = rng.uniform(0.05, 1.0, (8, 1)) / (1.0 + (np.arange(1, n_shards + 1) / pace) ** 3)
        reach = np.concatenate([np.ones((8, 1)), after], axis=1)
        found = assign(reach, n_shards, holders=(2, 3), schedule=schedule)
        best = solve_exactly(reach, n_shards, holders=(2, 3), schedule=schedule)
        gaps.append(found.residual_error / best.residual_error - 1.0)
    assert max(gaps) < 0.02
