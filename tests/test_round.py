"""One round without Flower: plan, decode, learn."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fedgc.coherence import KnownCoherence
from fedgc.completion_times.clients import FittedClients, fit_clients
from fedgc.deadline import AutomaticDeadline, DeadlineRule, FixedDeadline, QuantileDeadline
from fedgc.decoders import DECODERS, Decoder, OptimalUnbiasedDecoder
from fedgc.fleets import build_fleet
from fedgc.planning import constraints_of
from fedgc.reliability import ReliabilityPosterior
from fedgc.round import CodedUpdate, Planning, RoundPlan, RoundState, finish_round, plan_round
from fedgc.round.saved_state import state_from_tree, state_to_tree
from tests.enumeration import arrival_sets

ARRAYS = {"a": np.zeros(5), "b": np.zeros((2, 2))}
SIZES = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
RNG = np.random.default_rng(0)
SHARD_UPDATES = [{"a": RNG.standard_normal(5), "b": RNG.standard_normal((2, 2))} for _ in SIZES]
FULL = {name: sum(n * u[name] for n, u in zip(SIZES / SIZES.sum(), SHARD_UPDATES, strict=True)) for name in ARRAYS}
NODES = (11, 5, 7, 2, 9)


def observed(outcomes: dict[int, tuple[int, int]]) -> ReliabilityPosterior:
    posterior = ReliabilityPosterior(forgetting=1.0)
    for node, (arrivals, misses) in outcomes.items():
        for came in [True] * arrivals + [False] * misses:
            posterior = posterior.update({node: came})
    return posterior


def coded(plan: RoundPlan, client: int) -> CodedUpdate:
    shards, coefficients = plan.decoder.code.shards_of(client), plan.decoder.code.coefficients_of(client)
    total = {
        name: sum(a * SIZES[j] * SHARD_UPDATES[j][name] for j, a in zip(shards, coefficients, strict=True))
        for name in ARRAYS
    }
    return CodedUpdate({client: total}, shards, SIZES[shards])


STATE = RoundState(SIZES, observed({11: (5, 1), 5: (1, 6), 7: (3, 3), 2: (2, 8), 9: (9, 0)}))


@pytest.mark.parametrize("decoder", [kind() for kind in DECODERS.values() if kind.unbiased], ids=lambda kind: kind.name)
@pytest.mark.parametrize("load", [1, 2, 5])
def test_decoded_update_is_unbiased_over_all_arrival_sets(decoder: Decoder, load: int) -> None:
    """The whole chain, from plan to decoded arrays, against the exact weighted mean of all shard updates."""
    plan = plan_round(STATE, NODES, Planning(load=load, decoder=decoder))
    mean = {name: np.zeros(value.shape) for name, value in ARRAYS.items()}
    for arrived, probability in arrival_sets(plan.straggle_prob):
        replies = {int(client): coded(plan, int(client)) for client in np.flatnonzero(arrived)}
        _, outcome = finish_round(STATE, plan, replies, arrays=ARRAYS)
        if outcome.update is None:
            assert not arrived.any()
            continue
        for name, value in outcome.update.items():
            mean[name] += probability * value
    for name, value in FULL.items():
        np.testing.assert_allclose(mean[name], value, atol=1e-12)


def test_nodes_are_told_apart_by_id_not_by_order() -> None:
    plans = [
        plan_round(STATE, nodes, Planning(load=2, decoder=OptimalUnbiasedDecoder())) for nodes in (NODES, NODES[::-1])
    ]
    assert plans[0].node_ids == plans[1].node_ids == tuple(sorted(NODES))
    np.testing.assert_array_equal(plans[0].code.encoding_matrix, plans[1].code.encoding_matrix)
    np.testing.assert_allclose(plans[0].straggle_prob, STATE.reliability.straggle_prob(sorted(NODES)))


def test_probabilities_come_from_past_rounds_only() -> None:
    plan = plan_round(STATE, NODES, Planning(load=2, decoder=OptimalUnbiasedDecoder()))
    before = plan.straggle_prob.copy()
    state, _ = finish_round(STATE, plan, {0: coded(plan, 0)}, arrays=ARRAYS)
    np.testing.assert_array_equal(plan.straggle_prob, before)
    after = state.reliability.straggle_prob(plan.node_ids)
    assert after[0] < before[0]
    assert (after[1:] > before[1:]).all()
    # A round with another deadline, while a runtime starts up, tells neither who comes by the usual one nor how fast.
    same, _ = finish_round(STATE, plan, {0: coded(plan, 0)}, arrays=ARRAYS, learn=False, waited=5.0)
    assert same.reliability is STATE.reliability
    assert same.completion_times is STATE.completion_times and not same.new_times
    seen, _ = finish_round(STATE, plan, {0: coded(plan, 0)}, arrays=ARRAYS, waited=5.0)
    assert seen.completion_times.to_data() != STATE.completion_times.to_data()


def test_unknown_sizes_are_learnt() -> None:
    state = RoundState(np.full(6, np.nan), STATE.reliability)
    plan = plan_round(state, NODES, Planning(load=2, decoder=OptimalUnbiasedDecoder()))
    everyone = {client: coded(plan, client) for client in range(5)}
    learnt, outcome = finish_round(state, plan, everyone, arrays=ARRAYS)
    np.testing.assert_array_equal(learnt.shard_examples, SIZES)
    _, expected = finish_round(STATE, plan, everyone, arrays=ARRAYS)
    for name in ARRAYS:
        np.testing.assert_array_equal(outcome.update[name], expected.update[name])  # type: ignore[index]


def test_blocks_stay_unless_new_ones_pay() -> None:
    plan = plan_round(STATE, NODES, Planning(load=2, decoder=OptimalUnbiasedDecoder()))
    state, _ = finish_round(STATE, plan, {}, arrays=ARRAYS)
    # The plan was balanced for these very probabilities; one empty round does not change that by a fifth.
    assert plan_round(state, NODES, Planning(load=2, decoder=OptimalUnbiasedDecoder())).code is plan.code
    # Two reliable clients in one block, two unreliable ones in the other: pairing them anew pays.
    level = RoundState(SIZES)
    first = plan_round(level, NODES[:4], Planning(load=2, decoder=OptimalUnbiasedDecoder()))
    together = {node: int(block) for node, block in zip(first.node_ids, first.code.blocks.of_client, strict=True)}
    outcomes = {node: (20, 0) if block == 0 else (0, 20) for node, block in together.items()}
    shifted = RoundState(SIZES, observed(outcomes), plan=first)
    again = plan_round(shifted, NODES[:4], Planning(load=2, decoder=OptimalUnbiasedDecoder()))
    assert again.code is not first.code
    kept = plan_round(shifted, NODES[:4], Planning(load=2, decoder=OptimalUnbiasedDecoder(), reassignment_gain=1.0))
    assert kept.code is first.code
    assert again.decoder.residual_error < 0.8 * kept.decoder.residual_error


def test_few_or_many_nodes_still_get_a_plan() -> None:
    few = plan_round(STATE, [4], Planning(load=3, decoder=OptimalUnbiasedDecoder()))
    np.testing.assert_array_equal(few.code.encoding_matrix, np.ones((1, 6)))
    many = plan_round(STATE, range(40), Planning(load=2, decoder=OptimalUnbiasedDecoder()))
    assert many.code.blocks.n_blocks <= 6
    assert (many.code.encoding_matrix.sum(axis=0) >= 2).all()
    with pytest.raises(ValueError, match="node_ids must be at least one distinct id"):
        plan_round(STATE, [], Planning(load=2, decoder=OptimalUnbiasedDecoder()))
    with pytest.raises(ValueError, match="node_ids must be at least one distinct id"):
        plan_round(STATE, [1, 1], Planning(load=2, decoder=OptimalUnbiasedDecoder()))


def test_work_lists_stay_where_they_are_when_a_client_leaves_or_joins() -> None:
    planning = Planning(load=2, decoder=OptimalUnbiasedDecoder(), schedule="work-list", deadline=FixedDeadline(10.0))
    state = RoundState(np.ones(24), STATE.reliability)
    nodes = (1, 2, 3, 4, 5, 6)
    first = plan_round(state, nodes, planning)
    after = RoundState(np.ones(24), STATE.reliability, plan=first)

    def holdings(plan: RoundPlan) -> set[tuple[int, int]]:
        assert plan.assignment is not None
        return {
            (plan.everyone[client], int(s))
            for client in range(len(plan.everyone))
            for s in plan.assignment.shards_of(client)
        }

    fewer = plan_round(after, nodes[:5], planning)
    assert {shard for _, shard in holdings(fewer)} == set(range(24))
    kept = {(node, shard) for node, shard in holdings(first) if node != 6}
    anew = plan_round(RoundState(np.ones(24), STATE.reliability), nodes[:5], planning)
    assert len(holdings(fewer) - kept) < len(holdings(anew) - kept)
    more = plan_round(RoundState(np.ones(24), STATE.reliability, plan=fewer), (*nodes[:5], 7), planning)
    assert 7 in more.node_ids


@pytest.mark.parametrize(("fetch_seconds", "rounds", "moves"), [(0.0, 500, True), (1e6, 500, False), (0.0, 3, False)])
def test_shards_move_only_if_that_pays_over_the_rounds_left(fetch_seconds: float, rounds: int, moves: bool) -> None:
    """A fleet whose fast clients are not those that the lists were made for."""
    tables = [
        {"model": "log-normal", "clients": 6, "sigma": 0.5, "median": median}
        for median in ([1.0] * 3 + [2.0] * 3, [2.0] * 3 + [1.0] * 3)
    ]
    fleets = [build_fleet(table, seed=1) for table in tables]
    plannings = [
        Planning(
            load=2,
            decoder=OptimalUnbiasedDecoder(),
            schedule="work-list",
            deadline=FixedDeadline(12.0),
            timing=fleet,
            fetch_seconds=fetch_seconds,
            rounds=rounds,
        )
        for fleet in fleets
    ]
    nodes = (1, 2, 3, 4, 5, 6)
    first = plan_round(RoundState(np.ones(36)), nodes, plannings[0])
    again = plan_round(RoundState(np.ones(36), plan=first, rounds=3), nodes, plannings[1])
    assert first.assignment is not None
    assert again.assignment is not None
    assert (again.assignment.shards_moved(first.assignment) > 0) == moves


def test_silence_until_an_early_end_says_only_that_the_list_was_not_finished() -> None:
    planning = Planning(load=2, decoder=OptimalUnbiasedDecoder(), schedule="work-list", deadline=FixedDeadline(10.0))
    state = RoundState(np.ones(6), STATE.reliability)
    plan = plan_round(state, NODES, planning)
    for waited, asked in ((4.0, [plan.code.shards_of(client).size for client in range(5)]), (10.0, [1] * 5)):
        after, _ = finish_round(state, plan, {}, arrays=ARRAYS, waited=waited)
        history = after.completion_times.history
        assert history is not None
        assert np.nanmax(history.shards[history.rows(plan.node_ids)], axis=1).tolist() == asked


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_a_known_fleet_still_gets_the_deadline_that_its_rule_chooses(schedule: str) -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 5, "sigma": 0.2}, seed=1)
    rule = QuantileDeadline(0.8, initial=60.0)
    planning = Planning(
        load=2, decoder=OptimalUnbiasedDecoder(), schedule=schedule, deadline=rule, timing=fleet, reassignment_gain=1.0
    )
    plan = plan_round(RoundState(np.ones(10)), NODES, planning)
    assert plan.deadline is not None
    assert plan.deadline < 40.0


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_what_is_known_of_a_fleet_stays_with_its_clients_when_some_leave(schedule: str) -> None:
    fleet = build_fleet(
        {"model": "log-normal", "clients": 5, "sigma": 0.2, "dropout": [0.5, 0.0, 0.0, 0.0, 0.1], "storage": 9}, seed=1
    )
    planning = Planning(
        load=2,
        decoder=OptimalUnbiasedDecoder(),
        schedule=schedule,
        deadline=FixedDeadline(9.0),
        timing=fleet,
        constraints=constraints_of(fleet),
        nodes=tuple(sorted(NODES)),
    )
    state = RoundState(np.ones(10))
    everyone = plan_round(state, NODES, planning)
    left = tuple(node for node in sorted(NODES) if node != 5)
    fewer = plan_round(replace(state, plan=everyone), left, planning)
    assert set(fewer.node_ids) <= set(left)
    # The second client, by node id, has left: the one that is often absent is still the first.
    lengths = np.array([fewer.code.shards_of(client).size for client in range(len(fewer.node_ids))])
    asked = np.zeros(5)
    asked[[sorted(NODES).index(node) for node in fewer.node_ids]] = lengths
    known = fleet.straggle_prob(9.0, asked)[[sorted(NODES).index(node) for node in fewer.node_ids]]
    if schedule == "full":
        np.testing.assert_allclose(fewer.straggle_prob, np.maximum(known, 0.0), atol=1e-9)
    stranger = plan_round(replace(state, plan=everyone), (*left, 99), planning)
    assert 99 in stranger.node_ids


@pytest.mark.parametrize("redraw", [None, True, False])
@pytest.mark.parametrize(("sizes", "coherence"), [((10, 10, 10), 0.9), ((1, 1, 10), 0.0), ((1, 1, 10), 0.9)])
def test_shards_change_places_unless_fixed_ones_have_less_residual_error(
    sizes: tuple[int, ...], coherence: float, redraw: bool | None
) -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 4, "dropout": 0.1, "sigma": 0.4}, seed=2)
    planning = Planning(
        load=2,
        decoder=OptimalUnbiasedDecoder(),
        schedule="work-list",
        deadline=FixedDeadline(6.0),
        timing=fleet,
        redraw=redraw,
    )
    state = RoundState(np.array(sizes * 2, dtype=float), coherence=KnownCoherence(energy=1.0, overlap=coherence))
    errors = {}
    for choice in (True, False, redraw):
        plan = plan_round(state, tuple(range(4)), replace(planning, redraw=choice))
        errors[choice] = plan.decoder.residual_error
        if choice is not None:
            assert (plan.code.interchangeable is not None) is choice
    if redraw is None:
        assert errors[None] == min(errors[True], errors[False])
    if sizes == (1, 1, 10):
        assert (errors[True] < errors[False]) is (coherence == 0.0)


@pytest.mark.parametrize(
    "rule", [FixedDeadline(9.0), QuantileDeadline(0.6, initial=9.0), AutomaticDeadline(initial=9.0)]
)
def test_a_plan_of_blocks_fits_times_only_where_deadline_or_blocks_are_thought_over(
    rule: DeadlineRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []

    def counted(*args: Any) -> FittedClients:
        fits.append(1)
        return fit_clients(*args)

    monkeypatch.setattr("fedgc.completion_times.model.fit_clients", counted)
    planning, state = Planning(load=2, decoder=OptimalUnbiasedDecoder(), deadline=rule), replace(STATE, rounds=0)
    rng, asked, empty = np.random.default_rng(0), [], []
    for _ in range(12):
        before = len(fits)
        plan = plan_round(state, NODES, planning)
        asked.append(len(fits) - before)
        replies = {
            client: replace(
                coded(plan, client), seconds=float(rng.uniform(1.0, 12.0)), work_seconds=1.0, busy_seconds=1.0
            )
            for client in range(len(NODES))
        }
        late = [client for client, reply in replies.items() if reply.seconds > plan.deadline]  # type: ignore[operator]
        for client in late:
            del replies[client]
        state, _ = finish_round(state, plan, replies, arrays=ARRAYS, waited=plan.deadline)
        empty.append(not replies)
    # Times are updated after rounds 1, 2, 3, 5 and 10, and those in which nothing came, and a plan asks anew only then,
    # once for both codes.
    assert asked == [int(k in (1, 2, 3, 5, 10) or (k > 0 and empty[k - 1])) for k in range(12)]


def test_whether_to_redraw_must_be_yes_no_or_open() -> None:
    with pytest.raises(ValueError, match="redraw must be True, False or None; got 'always'"):
        Planning(load=2, decoder=OptimalUnbiasedDecoder(), redraw="always")  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [FixedDeadline(8.0), AutomaticDeadline(initial=30.0)])
def test_blocks_are_sized_by_speed_once_times_have_been_seen(rule: DeadlineRule) -> None:
    median = np.array([0.5, 0.5, 2.0, 2.0, 2.0, 2.0])
    fleet = build_fleet({"model": "log-normal", "clients": 6, "sigma": 0.3, "median": median.tolist()}, seed=1)
    decoder = OptimalUnbiasedDecoder()
    planning = Planning(load=2, decoder=decoder, deadline=rule, seed=1)
    state = RoundState(np.ones(24), coherence=KnownCoherence(energy=1.0, overlap=0.0))
    errors, blocks, deadlines = [], [], []
    for server_round in range(26):
        plan = plan_round(state, range(6), planning)
        deadline = plan.deadline or 0.0
        replies = {}
        for client, node in enumerate(plan.node_ids):
            shards = plan.code.shards_of(client)
            seconds = fleet.completion_time(node, server_round, shards.size)
            if seconds <= deadline:
                sums = {client: {"w": np.zeros(1)}}
                replies[client] = CodedUpdate(sums, shards, np.ones(shards.size), seconds, seconds, seconds)
        state, outcome = finish_round(state, plan, replies, arrays={"w": np.zeros(1)}, waited=deadline)
        errors.append(outcome.model_residual_error)
        blocks.append(plan.code.blocks)
        deadlines.append(deadline)
        # Nobody is left out for good, and what is written down leads to the same plan.
        assert plan.node_ids == tuple(range(6))
        if server_round in (0, 1, 7):
            again = plan_round(state_from_tree(state_to_tree(state), planning, None), range(6), planning)
            expected = plan_round(state, range(6), planning)
            np.testing.assert_array_equal(again.code.encoding_matrix, expected.code.encoding_matrix)
            np.testing.assert_array_equal(again.straggle_prob, expected.straggle_prob)
            assert again.deadline == expected.deadline
    first, last = blocks[0], blocks[-1]
    assert np.bincount(first.of_shard).tolist() == [8] * 3
    # Of eight shards in 8 s the slow ones would do next to none: their blocks are far smaller than the fast ones'.
    sizes = np.sort(np.bincount(last.of_shard))
    assert sizes[-1] >= 2 * sizes[0]
    known = replace(planning, timing=fleet, deadline=FixedDeadline(deadlines[-1]))
    foreseen = plan_round(RoundState(np.ones(24), coherence=state.coherence), range(6), known)
    spread = np.std(errors[6:]) / np.sqrt(20)
    assert abs(np.mean(errors[6:]) - (foreseen.decoder.residual_error or 0.0)) < max(4.0 * spread, 0.05)
    # Beyond the first rounds blocks stay, unless a change pays.
    assert sum(one is not other for one, other in pairwise(blocks[6:])) <= 2


def test_blocks_stay_for_ever_if_asked_to() -> None:
    fits = Planning(load=2, decoder=OptimalUnbiasedDecoder(), deadline=FixedDeadline(9.0), reassignment_gain=1.0)
    plan = plan_round(STATE, NODES, fits)
    state, _ = finish_round(STATE, plan, {0: replace(coded(plan, 0), seconds=1.0)}, arrays=ARRAYS, waited=9.0)
    assert state.completion_times.priors
    assert plan_round(state, NODES, fits).code is plan.code
