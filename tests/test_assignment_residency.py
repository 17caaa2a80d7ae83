"""Assign: shards that may live only on listed clients, where rules overlap and room is scarce."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedgc.assignment import AssignmentConstraints, InfeasibleAssignmentError, assign, local_search, reassign
from fedgc.assignment.feasibility import diagnosis
from fedgc.assignment.greedy import greedy_starts
from fedgc.assignment.instance import make_instance
from fedgc.assignment.listed_rows import listed_rows
from fedgc.assignment.mending import mended
from fedgc.assignment.relaxation import copies_have_no_place
from fedgc.fleets import build_fleet
from fedgc.simulation import run_virtual
from tests.assignment_cases import check_valid

SCHEDULES = ["full", "work-list"]


@pytest.fixture
def few_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested with it does not depend on how long the search goes on."""
    monkeypatch.setattr(local_search, "_MOST_SWEEPS", 60)


def random_reach(rng: np.random.Generator, n_clients: int, width: int) -> NDArray[np.float64]:
    return np.hstack([np.ones((n_clients, 1)), np.sort(rng.random((n_clients, width)), axis=1)[:, ::-1]])


def ring(n_clients: int) -> AssignmentConstraints:
    """Two shards of each client, which the next one may not hold."""
    return AssignmentConstraints(
        residency=[
            ([2 * i, 2 * i + 1], [client for client in range(n_clients) if client != (i + 1) % n_clients])
            for i in range(n_clients)
        ]
    )


def planted(seed: int, n_clients: int) -> tuple[NDArray[np.float64], int, dict[str, Any]]:
    """All limits, drawn around an assignment that meets them, with more or less slack."""
    rng = np.random.default_rng(seed)
    holders, slack = int(rng.integers(1, 4)), float(rng.choice([0.0, 0.1, 0.3]))
    schedule = SCHEDULES[int(rng.integers(2))]
    n_blocks = n_clients // holders
    blocks = rng.permutation(n_clients)[: n_blocks * holders].reshape(n_blocks, holders)
    sizes = rng.integers(1, 9, n_blocks)
    m = int(sizes.sum())
    storage, computation = rng.integers(0, 9, n_clients), rng.integers(0, 9, n_clients)
    domain = rng.integers(0, holders + 2, n_clients)
    for members, size in zip(blocks, sizes, strict=True):
        storage[members] = np.ceil(size * (1 + slack * rng.random(holders)))
        share = size if schedule == "full" else size / holders
        computation[members] = np.ceil(share * (1 + slack * rng.random(holders)))
        domain[members] = rng.permutation(holders + 2)[:holders]
    of_shard = rng.permutation(np.repeat(np.arange(n_blocks), sizes))
    rules = [
        ([shard], np.union1d(blocks[of_shard[shard]], rng.choice(n_clients, int(n_clients * slack / 2), replace=False)))
        for shard in range(m)
        if rng.random() < 0.2
    ]
    limits = AssignmentConstraints(storage=storage, computation=computation, domain=domain, residency=rules)
    return random_reach(rng, n_clients, 10), m, {"holders": holders, "schedule": schedule, "constraints": limits}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("holders", [1, 2])
@pytest.mark.parametrize("n_clients", [8, 10, 16, 30])
def test_rules_that_bar_one_client_each_cost_next_to_nothing(n_clients: int, holders: int, schedule: str) -> None:
    reach = random_reach(np.random.default_rng(n_clients), n_clients, 16)
    options: dict[str, Any] = {"holders": holders, "schedule": schedule}
    found = assign(reach, 2 * n_clients, **options, constraints=ring(n_clients))
    check_valid(found, reach, **options, constraints=ring(n_clients))
    assert found.residual_error <= 1.05 * assign(reach, 2 * n_clients, **options).residual_error


@pytest.mark.usefixtures("few_sweeps")
@pytest.mark.parametrize("n_clients", [16, 24, 40, 60])
def test_what_is_planted_is_found(n_clients: int) -> None:
    for seed in range(25):
        reach, m, options = planted(1000 * n_clients + seed, n_clients)
        check_valid(assign(reach, m, **options), reach, **options)


@pytest.mark.parametrize("holders", [1, 2])
@pytest.mark.parametrize("limited", [False, True])
def test_it_is_no_worse_than_restarts_of_a_naive_filler(holders: int, limited: bool) -> None:
    """Random pairs, and each shard, those with the fewest places first, to where it adds the least."""
    n, m = 16, 64
    rules = [
        (range(12), range(8)),
        (range(12, 24), range(4, 12)),
        (range(24, 36), range(8, 16)),
        (range(36, 48), [0, 1, 2, 3, 12, 13, 14, 15]),
        (range(48, 64), range(2, 14)),
    ]
    allowed = [set(clients) for shards, clients in rules for _ in shards]
    storage = np.full(n, 14 if limited else m)
    domain = np.arange(n) // 2 if limited else np.arange(n)
    limits = AssignmentConstraints(storage=storage, domain=domain, residency=rules)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        reach = random_reach(rng, n, 16)
        miss = 1.0 - np.hstack([reach, np.zeros((n, m))])
        best = np.inf
        for _ in range(300):
            pairs = rng.permutation(n).reshape(-1, holders)
            size = np.arange(m + 2)
            missed = miss[pairs][:, :, size].prod(axis=1)
            cost = np.where(missed < 1.0, size * missed / np.maximum(1.0 - missed, 1e-300), np.inf)
            cost[:, 0] = 0.0
            distinct = np.array([len(set(domain[pair].tolist())) == holders for pair in pairs])
            cap = np.where(distinct, storage[pairs].min(axis=1), 0)
            able = np.array([[set(pair.tolist()) <= clients for pair in pairs] for clients in allowed])
            held = np.zeros(len(pairs), dtype=int)
            for shard in np.argsort(able.sum(axis=1), kind="stable"):
                with np.errstate(invalid="ignore"):
                    extra = cost[np.arange(len(pairs)), held + 1] - cost[np.arange(len(pairs)), held]
                extra = np.where(able[shard] & (held < cap) & ~np.isnan(extra), extra, np.inf)
                if not np.isfinite(extra.min()):
                    break
                held[int(np.argmin(extra))] += 1
            else:
                best = min(best, float(cost[np.arange(len(pairs)), held].sum()) / m)
        options: dict[str, Any] = {"holders": holders, "schedule": "full", "constraints": limits}
        found = assign(reach, m, **options)
        check_valid(found, reach, **options)
        assert np.isfinite(best)
        assert found.residual_error <= 1.01 * best


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_blocks_hold_shards_of_many_classes(schedule: str) -> None:
    """Four rules that each bar a quarter of thirteen clients: no client has room for a class of its own."""
    n, m = 13, 26
    rules = [
        (range(k * m // 4, (k + 1) * m // 4), [i for i in range(n) if not k * n // 4 <= i < (k + 1) * n // 4])
        for k in range(4)
    ]
    reach = np.full((n, 17), 0.9)
    reach[:, 0] = 1.0
    limits = AssignmentConstraints(residency=rules)
    found = assign(reach, m, holders=2, schedule=schedule, constraints=limits)
    check_valid(found, reach, holders=2, schedule=schedule, constraints=limits)
    # Everybody does all or nothing, so any pair misses a hundredth, whatever it holds.
    assert found.residual_error == pytest.approx(0.01 / 0.99)


@pytest.mark.usefixtures("few_sweeps")
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_losses_under_overlapping_rules_are_repaired(schedule: str) -> None:
    n = 30
    reach = random_reach(np.random.default_rng(3), n, 16)
    options: dict[str, Any] = {"holders": (1, 2), "constraints": ring(n)}
    old = assign(reach, 2 * n, schedule=schedule, **options)
    prices = {"round_seconds": 10.0, "rounds_left": 100}
    for seed in range(4):
        alive = np.random.default_rng(seed).random(n) < 0.8
        new = reassign(old, reach, alive=alive, **options, **prices, seconds_per_shard=1.0)
        assert (new.block_of_client[~alive] == -1).all()
        check_valid(new, reach, schedule=schedule, **options)
    free = reassign(old, reach[::-1], **options, **prices, seconds_per_shard=0.0)
    assert free.residual_error <= assign(reach[::-1], 2 * n, schedule=schedule, **options).residual_error * (1 + 1e-9)


def test_an_integer_program_finds_what_is_planted_without_a_search() -> None:
    for seed in range(3):
        reach, m, options = planted(seed, 16)
        instance = make_instance(reach, m, options["holders"], options["schedule"], options["constraints"])
        assert not copies_have_no_place(instance)
        rows, impossible = listed_rows(instance, seconds=60.0)
        assert rows is not None and not impossible
        assert rows.sizes.sum() == m
        assert (instance.may_hold(rows.tied.of_class, rows.members[rows.tied.row])).all()
        assert (rows.sizes <= np.where(rows.sizes > 0, instance.cap(rows.members), 0)).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("holders", "given", "blamed", "by_flow"),
    [
        # Three shards of which each must be on two of three clients, that have room for two, two and one.
        (2, {"storage": [2, 2, 1] + [9] * 17, "residency": [(range(3), range(3))]}, ("storage", "residency"), True),
        # Pairs within the two sites of three clients each that may hold a class: the third of each has no partner.
        (
            2,
            {"domain": ["a", "a", "b", "c", *"d" * 16], "residency": [([0], [0, 1]), ([1], [2, 3])]},
            ("residency", "domain"),
            True,
        ),
        # Each of three pairs is wanted, and they share a client: copies find a place, blocks do not.
        (2, {"residency": [([0], [0, 1]), ([1], [1, 2]), ([2], [0, 2])]}, ("residency",), False),
        (
            2,
            {"storage": [9] * 3 + [4] * 17, "residency": [([0], [0, 1]), ([1], [1, 2])]},
            ("residency",),
            False,
        ),
    ],
)
def test_what_is_impossible_is_proved_and_named(
    holders: int, given: dict[str, Any], blamed: tuple[str, ...], by_flow: bool, schedule: str
) -> None:
    reach = random_reach(np.random.default_rng(0), 20, 8)
    limits = AssignmentConstraints(**given)
    assert copies_have_no_place(make_instance(reach, 20, holders, schedule, limits)) == by_flow
    with pytest.raises(InfeasibleAssignmentError, match="must leave room") as caught:
        assign(reach, 20, holders=holders, schedule=schedule, constraints=limits)
    assert set(caught.value.constraints) - {"holders"} <= set(blamed)
    assert "none is known to exist or not" not in str(caught.value)


def test_what_is_neither_found_nor_disproved_is_told_so() -> None:
    limits = AssignmentConstraints(residency=[([0], [0, 1])], domain=list("ab") * 8)
    instance = make_instance(random_reach(np.random.default_rng(0), 16, 4), 4, 2, "full", limits)
    error = diagnosis(instance, impossible=False)
    assert str(error) == (
        "found no assignment for 4 shards, 16 clients and 2 holders that meets domain, residency; "
        "none is known to exist or not"
    )
    assert error.constraints == ("domain", "residency", "holders")


def test_a_search_alone_proves_nothing() -> None:
    """Without time for a proof, rows that cannot be mended are no statement about the constraints."""
    limits = AssignmentConstraints(residency=[([0], [0, 1]), ([1], [1, 2]), ([2], [0, 2])])
    instance = make_instance(random_reach(np.random.default_rng(0), 20, 8), 20, 2, "full", limits)
    feasible, others = greedy_starts(instance)
    assert not feasible
    assert mended(instance, others, np.random.default_rng(0), part=0.05) is None
    assert listed_rows(instance, seconds=60.0) == (None, True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_trains_under_overlapping_rules(schedule: str) -> None:
    n, m = 10, 20
    fleet = build_fleet({"model": "log-normal", "clients": n, "sigma": 0.2, "dropout": 0.2}, seed=1)
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=m,
        deadline=6.0,
        load=2,
        schedule=schedule,
        constraints=ring(n),
        shard_examples=[1] * m,
    )
    app, server = ClientApp(), ServerApp()

    @app.train()
    @gradient_coded(num_shards=m)
    def train(shard_id: int, arrays: Any, config: Any) -> ShardUpdate:
        return ShardUpdate(1, delta={"w": np.full(1, 1.0)})

    found = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        found.append(strategy.start(grid, ArrayRecord({"w": Array(np.zeros(1))}), num_rounds=6))

    run_virtual(server, app, fleet, num_shards=m)
    assert len(strategy.history) == 6
    assert found[0].arrays["w"].numpy()[0] > 3.0  # each round adds 1 in the mean
