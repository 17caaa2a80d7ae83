"""Nodes that leave, join, come back under another id, claim one partition twice, or are all gone for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedgc.assignment import AssignmentConstraints
from fedgc.errors import TooFewNodesError
from fedgc.fleets import build_fleet
from fedgc.simulation.grid import VirtualGrid
from fedgc.simulation.grid_state import Due
from fedgc.simulation.messages import Job
from fedgc.simulation.run import _task_identity

N_SHARDS = 12
#: Who is there after so many rounds, at an instant.
Present = Callable[[int, float], Collection[int]]


class ChurningGrid(VirtualGrid):
    """A grid in virtual time whose nodes are there when `present` says so; others get nothing and send nothing."""

    def __init__(self, partitions: dict[int, int], present: Present, app: ClientApp) -> None:
        fleet = build_fleet(
            {"model": "log-normal", "clients": max(partitions) - 99, "median": 0.5, "sigma": 0.1}, seed=1
        )
        contexts = {
            node: Context(1, node, {"partition-id": partition, "num-partitions": 6}, RecordDict(), {})
            for node, partition in partitions.items()
        }
        super().__init__(fleet, app, contexts, run_id=1, num_shards=N_SHARDS)
        self._present = present
        self.strategy: GradientCoding | None = None

    def present(self) -> Collection[int]:
        return self._present(len(self.strategy.history) if self.strategy else 0, self.clock.now())

    def get_node_ids(self) -> Iterable[int]:
        return sorted(self.present())

    def _push(self, message: Any) -> str:
        return super()._push(message) if message.metadata.dst_node_id in self.present() else ""

    def _complete(self, job: Job) -> None:
        if job.message.metadata.dst_node_id in self.present():
            super()._complete(job)


def train(
    partitions: dict[int, int],
    present: Present,
    *,
    rounds: int = 10,
    least: int = 3,
    inner: FedAvg | None = None,
    evaluated: list[int] | None = None,
    **options: Any,
) -> tuple[GradientCoding, np.ndarray[Any, Any]]:
    """Train for some rounds of 6 seconds and return the strategy and the model: the mean of what shards are about."""
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def _(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(1, delta={"w": 0.5 * (shard_id - arrays["w"].numpy())})

    @app.evaluate()
    def _(message: Message, context: Context) -> Message:
        assert evaluated is not None
        evaluated.append(int(str(message.content.config_records["config"]["server-round"])))
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)

    inner = inner or FedAvg(fraction_evaluate=0.0, min_train_nodes=least, min_available_nodes=least)
    settings = {"schedule": "work-list", "early_end": False, "start_timeout": 5.0, **options}
    strategy = GradientCoding(inner, num_shards=N_SHARDS, deadline=6.0, **settings)
    with _task_identity():
        grid = ChurningGrid(partitions, present, app)
        grid.strategy = strategy
        with grid.clock.installed():
            result = strategy.start(grid, ArrayRecord({"w": Array(np.zeros(1))}), num_rounds=rounds)
    return strategy, result.arrays["w"].numpy()


SIX = {100 + k: k for k in range(6)}
#: The mean of the shards' numbers, which training goes towards by half of the way every round.
GOAL = (N_SHARDS - 1) / 2


def after(rounds: int, before: Collection[int], then: Collection[int]) -> Present:
    return lambda done, now: before if done < rounds else then


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="flwr.fedgc")


@pytest.mark.parametrize("schedule", ["work-list", "full"])
def test_a_node_that_comes_back_under_another_id_keeps_its_history_and_its_shards(
    schedule: str, caplog: pytest.LogCaptureFixture
) -> None:
    stayed = [100, 101, 103, 104, 105]
    present = after(5, [*stayed, 102], [*stayed, 106])
    strategy, model = train(SIX | {106: 2}, present, schedule=schedule)
    assert "node 106 is node 102 come back: both say that they are partition 2" in caplog.text
    first, last = strategy.history[3], strategy.history[-1]
    assert first.node_ids == (100, 101, 102, 103, 104, 105)
    assert last.node_ids == (*stayed, 106)
    assert last.arrived.all()
    assert model == pytest.approx(GOAL, abs=0.1)
    reliability = {one.node_id: one for one in strategy.state.reliability.describe([102, 106])}
    took_part = sum(106 in report.node_ids for report in strategy.history)
    assert reliability[106].rounds > took_part  # with the rounds that it took part in before
    assert strategy.state.plan is not None
    # It is asked for introductions in one round and takes part from the next one on.
    asked = [106 in report.node_ids for report in strategy.history]
    assert asked == sorted(asked)
    assert asked.count(True) >= 3


def test_what_a_returning_node_held_stays_with_it() -> None:
    stayed = [100, 101, 103, 104, 105]
    held: list[dict[int, set[int]]] = []
    original = GradientCoding.aggregate_train

    def noting(self: GradientCoding, server_round: int, replies: Any) -> Any:
        result = original(self, server_round, replies)
        plan = self.state.plan
        assert plan is not None
        assert plan.assignment is not None
        held.append({node: set(plan.assignment.shards_of(k).tolist()) for k, node in enumerate(plan.everyone)})
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradientCoding, "aggregate_train", noting)
        # The former id is gone for a round, in which its shards go to others, before the new one can be planned with.
        train(SIX | {106: 2}, after(5, [*stayed, 102], [*stayed, 106]), reassignment_gain=1.0)
    assert held[-1].keys() == {*stayed, 106}
    kept = [node for node in stayed if held[0][node] <= held[-1][node]]
    assert len(kept) >= 4
    assert set().union(*held[-1].values()) == set(range(N_SHARDS))


def test_a_node_that_joins_late_takes_part(caplog: pytest.LogCaptureFixture) -> None:
    strategy, model = train(SIX, after(4, [100, 101, 102, 103], list(SIX)))
    assert strategy.history[0].node_ids == (100, 101, 102, 103)
    assert strategy.history[-1].node_ids == tuple(SIX)
    assert strategy.nodes[105].partition == 5
    assert not any(report.rejected for report in strategy.history)
    assert model == pytest.approx(GOAL, abs=0.1)
    assert "come back" not in caplog.text


def test_a_node_whose_first_answer_takes_rounds_joins_all_the_same() -> None:
    class Starting(ChurningGrid):
        def _complete(self, job: Job) -> None:
            assert self.strategy is not None
            if job.message.metadata.dst_node_id == 105 and len(self.strategy.history) < 7:
                self._schedule(Due(self.clock.now() + 0.5, "complete", job))  # its libraries are still being loaded
            else:
                super()._complete(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.test_churn.ChurningGrid", Starting)
        strategy, _ = train(SIX, after(4, [100, 101, 102, 103], list(SIX)), rounds=12)
    asked = [105 in report.node_ids for report in strategy.history]
    assert asked == [False] * asked.index(True) + [True] * (12 - asked.index(True))
    assert 6 < asked.index(True) < 10
    assert strategy.nodes[105].partition == 5
    assert not any(105 in report.rejected for report in strategy.history[:6])


def test_nodes_that_leave_are_done_without(caplog: pytest.LogCaptureFixture) -> None:
    strategy, model = train(SIX, after(4, list(SIX), [100, 101, 102]))
    assert strategy.history[-1].node_ids == (100, 101, 102)
    assert strategy.history[-1].shards_recovered == N_SHARDS
    assert model == pytest.approx(GOAL, abs=0.1)


def test_fewer_nodes_than_blocks_are_enough() -> None:
    strategy, model = train(SIX, after(4, list(SIX), [104]), least=1, rounds=14)
    assert strategy.history[-1].node_ids == (104,)
    assert model == pytest.approx(GOAL, abs=0.3)


def test_two_nodes_that_claim_one_partition_count_as_two(caplog: pytest.LogCaptureFixture) -> None:
    strategy, model = train(SIX | {106: 2}, after(4, list(SIX), [*SIX, 106]))
    assert "nodes 102 and 106 both say that they are partition 2: they count as two clients" in caplog.text
    assert strategy.history[-1].node_ids == (*SIX, 106)
    assert strategy.history[-1].arrived.all()
    assert model == pytest.approx(GOAL, abs=0.1)


def test_a_node_that_never_answers_never_takes_part_nor_holds_anyone_up() -> None:
    # Node 106 has no context: it is there, and what is sent to it is lost.
    strategy, model = train(SIX, after(4, list(SIX), [*SIX, 106]))
    assert strategy.history[-1].node_ids == tuple(SIX)
    # Until then everybody has replied before the deadline, and a round is over with the last reply.
    assert all((report.seconds or 0.0) < 6.1 for report in strategy.history)
    assert model == pytest.approx(GOAL, abs=0.1)


def test_all_nodes_gone_and_back_under_other_ids(caplog: pytest.LogCaptureFixture) -> None:
    def present(done: int, now: float) -> list[int]:
        return list(SIX) if done < 4 else [] if now < 500.0 else [110 + k for k in range(6)]

    strategy, model = train(SIX | {110 + k: k for k in range(6)}, present)
    assert "0 of at least 3 nodes are there; waiting for up to 3600 s more" in caplog.text
    assert "enough of them are there after" in caplog.text
    assert all(f"node {110 + k} is node {100 + k} come back" in caplog.text for k in range(6))
    assert len(strategy.history) == 10
    assert strategy.history[-1].node_ids == tuple(110 + k for k in range(6))
    assert {one.rounds > 4 for one in strategy.state.reliability.describe(range(110, 116))} == {True}
    assert model == pytest.approx(GOAL, abs=0.2)


def test_too_few_nodes_for_too_long_end_training_with_a_clear_message(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TooFewNodesError, match="2 of at least 3 nodes are there after 100 s: bring more up") as caught:
        train(SIX, after(4, list(SIX), [100, 101]), nodes_timeout=100.0)
    assert "\n" not in str(caught.value)
    assert caplog.text.count("waiting for up to") == 2  # at once, and after a minute


@pytest.mark.parametrize(
    ("nodes", "line"), [({"min_evaluate_nodes": 9}, "6 of at least 9"), ({"fraction_evaluate": 0.5}, None)]
)
def test_an_evaluation_with_too_few_nodes_is_left_out(
    nodes: dict[str, Any], line: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    evaluated: list[int] = []
    present, inner = after(0, [], list(SIX)), FedAvg(**nodes)
    strategy, model = train(SIX, present, inner=inner, evaluated=evaluated, nodes_timeout=100.0)
    assert len(strategy.history) == 10
    assert model == pytest.approx(GOAL, abs=0.1)
    left_out = f"{line} nodes are there after 100 s: bring more up, ask for fewer (min_available_nodes, min_evaluate"
    assert caplog.text.count(left_out) == (0 if line is None else 10)
    assert caplog.text.count("this evaluation is left out") == (0 if line is None else 10)
    assert sorted(evaluated) == ([] if line else sorted([*range(1, 11)] * 3))


def test_an_evaluation_waits_for_nodes_that_come_back(caplog: pytest.LogCaptureFixture) -> None:
    """Two nodes go in round 3, for 40 s: its evaluation waits for them."""
    left: list[float] = []

    def present(done: int, now: float) -> list[int]:
        if done == 3 and not left:
            left.append(now)
        away = bool(left) and now < left[0] + 40.0
        return list(SIX)[:4] if away else list(SIX)

    evaluated: list[int] = []
    strategy, _ = train(
        SIX, present, rounds=5, inner=FedAvg(min_available_nodes=6), evaluated=evaluated, nodes_timeout=100.0
    )
    assert "round 3: 4 of at least 6 nodes are there for evaluation; waiting for up to 100 s more" in caplog.text
    assert sorted(evaluated) == sorted([*range(1, 6)] * 6)
    assert len(strategy.history) == 5


@pytest.mark.parametrize("schedule", ["work-list", "full"])
def test_limits_stay_with_partitions(schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    """Shards 0 and 1 may live on partitions 2 and 3 only, whatever id these have, and a stranger gets nothing."""
    limits = AssignmentConstraints(storage=[N_SHARDS] * 6, residency={0: [2, 3], 1: [2, 3]})
    stayed = [100, 101, 103, 104, 105]
    asked: dict[int, set[int]] = {}
    original = GradientCoding.configure_train

    def noting(self: GradientCoding, *arguments: Any) -> Any:
        messages = list(original(self, *arguments))
        for message in messages:
            shards = message.content.config_records["fedgc"]["shard-ids"]
            asked.setdefault(message.metadata.dst_node_id, set()).update(shards)  # type: ignore[arg-type]
        return messages

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradientCoding, "configure_train", noting)
        present = after(5, [*stayed, 102], [*stayed, 106, 107])
        strategy, _ = train(SIX | {106: 2, 107: 9}, present, constraints=limits, schedule=schedule)
    assert asked[106] >= {0} or asked[103] >= {0}
    for node, shards in asked.items():
        assert node in {102, 103, 106} or not shards & {0, 1}
    assert asked[107] == set()
    assert "node 107 is not asked: the constraints do not name it" in caplog.text
    assert strategy.history[-1].node_ids == (*stayed, 106)
    assert strategy.history[-1].shards_recovered == N_SHARDS


@pytest.mark.parametrize("schedule", ["work-list", "full"])
def test_shards_whose_only_holders_are_away_are_waited_for(schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    limits = AssignmentConstraints(residency={0: [2], 1: [2]})
    others = [100, 101, 103, 104, 105]

    def present(done: int, now: float) -> list[int]:
        return list(SIX) if done < 4 else others if now < 200.0 else [*others, 106]

    strategy, model = train(SIX | {106: 2}, present, constraints=limits, load=1, schedule=schedule)
    assert "round 5: cannot be planned with the nodes that are there: residency must allow" in caplog.text
    assert "node 106 is node 102 come back" in caplog.text
    assert strategy.history[-1].node_ids == (*others, 106)
    assert model == pytest.approx(GOAL, abs=0.1)
    with pytest.raises(TooFewNodesError, match="0 of at least 1 others that can hold its shards are there after 50 s"):
        train(SIX, after(4, list(SIX), others), constraints=limits, load=1, nodes_timeout=50.0, schedule=schedule)


def test_a_reply_that_comes_twice_counts_once() -> None:
    class Twice(ChurningGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
            return [reply for reply in super().pull_messages(message_ids) for _ in range(2)]

    once = train(SIX, lambda done, now: list(SIX))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.test_churn.ChurningGrid", Twice)
        twice = train(SIX, lambda done, now: list(SIX))
    assert once[1].tolist() == twice[1].tolist()
