"""Replies that come after their round: evidence on times and a newer memory, never part of another round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.fleets import Fleet, build_fleet
from fedgc.memory import UpdateMemory
from fedgc.round import CodedUpdate, LateReplies, Planning, RoundPlan, RoundState, finish_round, plan_round
from fedgc.simulation import VirtualRun, run_virtual

ARRAYS = {"w": np.zeros(2)}
SLOW = 5  # the last of six clients takes 14 s, the others 5 s
INNER = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


def reply(value: float, client: int, shard: int, seconds: float | None = None) -> CodedUpdate:
    return CodedUpdate({client: {"w": np.full(2, value)}}, np.array([shard]), np.ones(1), seconds)


def uncoded_plan(state: RoundState) -> RoundPlan:
    return plan_round(state, [1, 2, 3], Planning(load=1, decoder=OptimalUnbiasedDecoder()))


def test_a_late_update_enters_the_memory_after_decoding_and_never_over_a_newer_one() -> None:
    state = RoundState(np.ones(3), memory=UpdateMemory.empty(3))
    plan = uncoded_plan(state)
    shards = [int(plan.code.shards_of(client)[0]) for client in range(3)]

    def of_client(client: int, value: float) -> CodedUpdate:
        return reply(value, client, shards[client])

    late = LateReplies(plan, {1: of_client(1, 7.0), 2: of_client(2, 9.0)}, {})
    now = {0: of_client(0, 1.0), 1: of_client(1, 2.0)}
    after, outcome = finish_round(state, plan, now, arrays=ARRAYS, late=late)
    _, without = finish_round(state, plan, now, arrays=ARRAYS)
    np.testing.assert_array_equal(outcome.update["w"], without.update["w"])  # type: ignore[index]
    assert after.memory is not None
    kept = {shard: float(after.memory.updates[int(after.memory.unit_of_shard[shard])]["w"][0]) for shard in shards}
    assert kept == {shards[0]: 1.0, shards[1]: 2.0, shards[2]: 9.0}


def test_silence_is_evidence_once_the_listening_has_ended() -> None:
    state = RoundState(np.ones(3))
    plan = uncoded_plan(state)
    after, _ = finish_round(state, plan, {0: reply(1.0, 0, 0, 2.0)}, arrays=ARRAYS, waited=5.0, pending=[1, 2])
    late = LateReplies(plan, {1: reply(1.0, 1, 1, 8.0)}, {2: 9.0})
    later, _ = finish_round(after, plan, {}, arrays=ARRAYS, waited=5.0, pending=[0, 1, 2], late=late)
    history = later.completion_times.history
    assert history is not None
    seen = {
        node: (float(history.seconds[row, 0]), bool(history.censored[row, 0]))
        for node, row in zip(plan.node_ids, history.rows(plan.node_ids), strict=True)
    }
    assert [seen[node] for node in plan.node_ids] == [(2.0, False), (8.0, False), (9.0, True)]
    assert history.count.tolist() == [1, 1, 1]


def slow_fleet() -> Fleet:
    return build_fleet({"clients": 6, "model": "log-normal", "median": [5.0] * 5 + [14.0], "sigma": 0.0}, seed=1)


def run(strategy: GradientCoding, *, backlog: bool, rounds: int) -> tuple[VirtualRun, list[tuple[int, int]]]:
    """Return the run and the (shard, round) pairs that were computed; every update tells its shard."""
    app, done = ClientApp(), []

    @app.train()
    @gradient_coded(num_shards=6)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        done.append((shard_id, int(config["server-round"])))  # type: ignore[arg-type]
        value: NDArray[Any] = np.zeros(6)
        value[shard_id] = 1.0
        return ShardUpdate(1, delta={"w": value})

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(grid, ArrayRecord({"w": Array(np.zeros(6))}), num_rounds=rounds)

    return run_virtual(server, app, slow_fleet(), num_shards=6, backlog=backlog), done


@pytest.mark.parametrize("memory", [False, True])
def test_a_client_that_is_always_late_is_known_and_remembered(memory: bool) -> None:
    # Shards stay where they are; if they may move, its shard soon goes to one who is in time, see below.
    strategy = GradientCoding(
        FedAvg(**INNER), num_shards=6, deadline=10.0, load=1, memory=memory, reassignment_gain=1.0
    )
    _, done = run(strategy, backlog=True, rounds=6)
    slow_shards = {shard for shard, _ in done} - {
        shard for report in strategy.history for shard in np.flatnonzero(report.coverage)
    }
    assert len(slow_shards) == 1, "its update is never decoded"
    state, slow = strategy.state, max(strategy.state.plan.node_ids)  # type: ignore[union-attr]
    history = state.completion_times.history
    assert history is not None
    row = history.rows([slow])[0]
    seen, censored = history.seconds[row, : history.count[row]], history.censored[row, : history.count[row]]
    # It begins the second message 4 s late, when it is done with the first, and the reply to the third comes too late.
    np.testing.assert_allclose(seen[~censored][:2], [14.0, 18.0])
    np.testing.assert_allclose(seen[censored], 20.0)
    in_time = [float(state.completion_times.in_time_prob([slow], 1, seconds)[0]) for seconds in (10.0, 20.0)]
    assert in_time[0] < 0.5 < in_time[1]
    if memory:
        assert state.memory is not None
        unit = int(state.memory.unit_of_shard[slow_shards.pop()])
        assert unit in state.memory.updates


def test_the_shard_of_a_client_that_is_always_late_goes_to_one_who_is_in_time() -> None:
    strategy = GradientCoding(FedAvg(**INNER), num_shards=6, deadline=10.0, load=1)
    run(strategy, backlog=True, rounds=6)
    assert [int(np.count_nonzero(report.coverage)) for report in strategy.history] == [5, 5, 5, 6, 6, 6]
    assert all(report.straggle_prob[SLOW] > 0.9 for report in strategy.history[3:])


def test_without_a_backlog_a_newer_message_ends_the_listening() -> None:
    strategy = GradientCoding(FedAvg(**INNER), num_shards=6, deadline=10.0, load=1)
    found, _ = run(strategy, backlog=False, rounds=6)
    assert {event.client for event in found.trace if event.kind == "replaced"} == {SLOW}
    history, slow = strategy.state.completion_times.history, max(strategy.state.plan.node_ids)  # type: ignore[union-attr]
    assert history is not None
    row = history.rows([slow])[0]
    assert history.censored[row, : history.count[row]].all()
    np.testing.assert_allclose(history.seconds[row, : history.count[row]], 10.0)


def test_a_second_start_takes_no_silence_of_the_first_for_evidence() -> None:
    """The slow client replies 14 s after each sending, but between two runs nobody listens."""
    strategy = GradientCoding(FedAvg(**INNER), num_shards=6, deadline=10.0, load=1)
    for _ in range(3):
        run(strategy, backlog=True, rounds=1)
    history, slow = strategy.state.completion_times.history, max(strategy.state.plan.node_ids)  # type: ignore[union-attr]
    assert history is not None
    assert slow not in history.node_ids
