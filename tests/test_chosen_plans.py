"""Which work lists and blocks a run chooses: by how long rounds take as well as by what they miss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from fedgc.strategies.rounds.send_round import warn_of_overheads
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.assignment import assign, longest_list
from fedgc.coherence import KnownCoherence
from fedgc.completion_times import Overheads
from fedgc.deadline import FixedDeadline, time_to_target
from fedgc.decoders import Decoder, FixedDecoder, OptimalUnbiasedDecoder
from fedgc.fleets import Fleet, build_fleet
from fedgc.forecast import forecast_round
from fedgc.round import CodedUpdate, LateReplies, Planning, RoundPlan, RoundState, finish_round, plan_round
from fedgc.simulation import run_virtual

N_CLIENTS, N_SHARDS = 20, 40
UPDATES = np.random.default_rng(0).standard_normal((N_SHARDS, 3))
MEAN = UPDATES.mean(axis=0)


class Run:
    """What came of a run in virtual time: seconds, copies, predicted and measured residual errors by round."""

    def __init__(self, table: dict[str, Any], *, seed: int, rounds: int, **options: Any) -> None:
        app, server, models = ClientApp(), ServerApp(), []

        @app.train()
        @gradient_coded()
        def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
            return ShardUpdate(10, delta={"w": UPDATES[shard_id]})

        inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        strategy = GradientCoding(inner, num_shards=N_SHARDS, **{"schedule": "work-list", **options})

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            first = ArrayRecord({"w": Array(np.zeros(3))})
            strategy.start(
                grid,
                first,
                num_rounds=rounds,
                evaluate_fn=lambda _, arrays: models.append(arrays["w"].numpy().copy()),
            )

        run_virtual(server, app, build_fleet({**table, "clients": N_CLIENTS}, seed=seed))
        reports = strategy.history
        self.seconds = np.array([report.seconds for report in reports])
        self.copies = np.array([report.metrics["fedgc-load"] for report in reports])
        self.predicted = np.array([report.metrics["fedgc-error-predicted"] for report in reports])
        self.measured = ((np.diff(np.array(models), axis=0) - MEAN) ** 2).sum(axis=1) / float(MEAN @ MEAN)


@pytest.mark.parametrize("load", [1, 2])
def test_a_healthy_fleet_keeps_its_copies_and_its_short_rounds(load: int) -> None:
    """By 30 s each could do all shards; a client takes a second for one."""
    run = Run({"model": "log-normal", "sigma": 0.05}, seed=1, rounds=20, load=load, deadline=30.0)
    # With one holder, clients that stand by for others make no more copies than there were with two.
    assert run.copies.max() <= (2.0 if load == 2 else 1.5)
    assert run.seconds[1:].max() < 1.3 * (4.2 if load == 2 else 3.0)
    assert run.measured.max() < 0.05


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_a_healthy_fleet_keeps_its_copies_in_whole_blocks_too(sigma: float) -> None:
    """By 60 s a few could do everything, which the rest would only copy; a round of equal blocks takes 4 to 8 s."""
    table = {"model": "log-normal", "sigma": sigma}
    run = Run(table, seed=1, rounds=20, load=2, deadline=60.0, schedule="full")
    equal = Run(table, seed=1, rounds=20, load=2, deadline=60.0, schedule="full", reassignment_gain=1.0)
    assert run.copies.max() <= 2.1
    assert run.seconds[6:].mean() <= 1.05 * equal.seconds[6:].mean()


@pytest.mark.parametrize(("preset", "most"), [("sessions", 0.1), ("uneven", 0.05)])
def test_an_unreliable_fleet_still_gets_its_backups(preset: str, most: float) -> None:
    adapted, kept = (
        Run({"preset": preset}, seed=3, rounds=30, load=2, deadline=20.0, reassignment_gain=gain) for gain in (0.2, 1.0)
    )
    assert adapted.copies[-1] > 2.0
    assert adapted.measured[5:].mean() < most
    assert adapted.predicted[5:].mean() < 0.5 * kept.predicted[5:].mean()
    times = [run.seconds[5:].mean() * (1.0 + run.measured[5:].mean()) for run in (adapted, kept)]
    assert times[0] < times[1]


NODES = tuple(range(1, 13))
KNOWN = KnownCoherence(energy=1.0, overlap=0.0)


def fleet_of(**table: Any) -> Fleet:
    return build_fleet({"model": "log-normal", "clients": len(NODES), "sigma": 0.2, **table}, seed=1)


def planning_of(fleet: Fleet, deadline: float, decoder: Decoder | None = None, **options: Any) -> Planning:
    rule = FixedDeadline(deadline)
    decoder = OptimalUnbiasedDecoder() if decoder is None else decoder
    return Planning(load=2, decoder=decoder, schedule="work-list", deadline=rule, timing=fleet, **options)


def with_long_lists(fleet: Fleet, planning: Planning, deadline: float) -> RoundState:
    """Return a state after three rounds of lists in which few clients do everything, with hardly any error."""
    first = plan_round(RoundState(np.ones(24), coherence=KNOWN), NODES, planning)
    few = assign(fleet.reach(deadline, longest_list(24, 12, 6)), 24, holders=6, schedule="work-list")
    code, active = few.code()
    nodes = tuple(NODES[client] for client in active)
    last = replace(first, assignment=few, code=code, node_ids=nodes)
    # With nothing to learn a plan is kept as it is, so that of the coherence is left open.
    return RoundState(np.ones(24), plan=last, rounds=3)


def time_of(fleet: Fleet, plan: RoundPlan, decoder: Decoder) -> float:
    """Return the predicted time to target."""
    assert plan.assignment is not None
    assert plan.deadline is not None
    code, active = plan.assignment.code()
    return time_to_target(forecast_round(fleet, code, decoder, plan.gram, plan.deadline, clients=active).round)


@pytest.mark.parametrize("fetch_seconds", [None, 0.0])
def test_long_lists_are_given_up_for_sooner_ones_though_these_miss_more(fetch_seconds: float | None) -> None:
    fleet = fleet_of()
    planning = planning_of(fleet, 40.0, fetch_seconds=fetch_seconds)
    state = with_long_lists(fleet, planning, 40.0)
    assert state.plan is not None
    after = plan_round(state, NODES, planning)
    assert after.code.load < 0.6 * state.plan.code.load
    assert time_of(fleet, after, planning.decoder) < 0.7 * time_of(fleet, state.plan, planning.decoder)
    for stays in ({"reassignment_gain": 1.0, "fetch_seconds": None}, {"fetch_seconds": 1e6}):
        kept = plan_round(state, NODES, replace(planning, **stays))
        assert kept.code.load == state.plan.code.load


def test_rounds_that_last_until_the_deadline_anyway_are_no_reason_to_give_up_copies() -> None:
    fleet = fleet_of()
    planning = planning_of(fleet, 40.0, early_end=False)
    state = with_long_lists(fleet, planning, 40.0)
    assert state.plan is not None
    assert plan_round(state, NODES, planning).code.load == state.plan.code.load


def test_a_backup_that_everyone_would_wait_for_is_left_out() -> None:
    """Thirteen clients make six pairs; weights that are settled before need everyone's reply."""
    table = {"median": [1.0] * 12 + [500.0], "clients": 13}
    fleet, nodes = fleet_of(**table), (*NODES, 13)
    plans = {
        decoder.name: plan_round(
            RoundState(np.ones(24), coherence=KNOWN), nodes, planning_of(fleet, 60.0, decoder=decoder)
        )
        for decoder in (FixedDecoder(), OptimalUnbiasedDecoder())
    }
    assert 13 not in plans["fixed"].node_ids
    assert 13 in plans["optimal-unbiased"].node_ids
    # Of a fleet that is being learnt, everyone goes on being asked.
    learnt = planning_of(fleet, 60.0, decoder=FixedDecoder())
    assert 13 in plan_round(RoundState(np.ones(24)), nodes, replace(learnt, timing=None)).node_ids


def test_fewer_actors_than_nodes_make_clients_late_and_not_the_rounds_empty() -> None:
    """Six nodes whose messages wait for two actors, as in Flower's Simulation Runtime; a shard takes 0.2 s.

    What a message waits for its actor looks like an overhead of its node, and an actor that is still at work on the
    last round keeps the next one waiting.
    """
    deadline, shard_seconds, nodes = 3.0, 0.2, (1, 2, 3, 4, 5, 6)
    planning = Planning(
        load=2, decoder=OptimalUnbiasedDecoder(), schedule="work-list", deadline=FixedDeadline(deadline), rounds=20
    )
    state, free, now, recovered, late = RoundState(np.ones(12)), [0.0, 0.0], 0.0, [], None
    for _ in range(20):
        plan = plan_round(state, nodes, planning)
        allowance = state.overheads.allowance(plan.node_ids, deadline)
        due: list[tuple[float, int, CodedUpdate]] = []
        for client in range(len(plan.node_ids)):
            actor = int(np.argmin(free))
            start, shards = max(now, free[actor]), plan.code.shards_of(client)
            done = min(shards.size, int((deadline - allowance[client]) / shard_seconds + 1e-9))
            busy = done * shard_seconds
            free[actor] = start + busy
            sums = {int(row): {"w": np.ones(2)} for row in plan.code.rows_after(client, done)}
            took = start + busy - now
            due.append((took, client, CodedUpdate(sums, shards[:done], np.ones(done), took, busy, busy)))
        due.sort(key=lambda one: one[0])
        arrived, replies, end = np.zeros(plan.code.n_rows, dtype=np.bool_), {}, deadline
        for took, client, reply in due:
            if took > deadline:
                break
            replies[client] = reply
            arrived[list(reply.sums)] = True
            if plan.decoder.settled(arrived):
                end = took
                break
        state, outcome = finish_round(state, plan, replies, arrays={"w": np.zeros(2)}, waited=end, late=late)
        late = LateReplies(plan, {client: reply for _, client, reply in due if client not in replies}, {})
        now += end
        recovered.append(float((outcome.decoding.coverage > 0.0).mean()))
    assert recovered == [1.0] * 20
    assert plan.code.load <= 3.0


@pytest.mark.parametrize(("slow", "warned"), [(3, True), (2, False)])
def test_messages_that_wait_as_long_as_the_deadline_are_warned_of(
    slow: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of six nodes that were heard of; a seventh was not."""
    seconds = {node: [0.1, 3.5, 3.5] if node < slow else [0.1, 0.1, 3.5] for node in range(6)}
    warn_of_overheads(Overheads(seconds), range(7), 3.0, 4)
    messages = [record.getMessage() for record in caplog.records]
    assert [message[:48] for message in messages] == ["round 4: 3 of 6 nodes mostly need the deadline o"][: int(warned)]
    warn_of_overheads(Overheads(), range(7), 3.0, 4)
    assert len(caplog.records) == warned
