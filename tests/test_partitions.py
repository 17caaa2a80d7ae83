"""Partitions: limits belong to them whoever is there, nobody takes one from a node that is there, waiting is seen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding, StatusPage
from fedgc.strategies.nodes.partitions import Partitions
from fedgc.strategies.nodes.warm_up import NodeFacts
from fedgc.strategies.reporting.status import RunStatus

from fedgc.assignment import AssignmentConstraints, InfeasibleAssignmentError
from fedgc.errors import TooFewNodesError
from fedgc.fleets import build_fleet
from fedgc.simulation.grid_state import Due
from fedgc.simulation.messages import Job
from tests.status_pages import Page, Statuses, data_of
from tests.test_churn import GOAL, N_SHARDS, SIX, ChurningGrid, after, train

SCHEDULES = pytest.mark.parametrize("schedule", ["work-list", "full"])
#: Node ids in the opposite order of partitions: node 105 is partition 0.
TURNED = {105 - k: k for k in range(6)}
ONLY_ON_2 = AssignmentConstraints(residency={0: [2], 1: [2]})
ROOM = [N_SHARDS] * 6


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="flwr.fedgc")


class Asked:
    """Which shards each node was ever asked for, and the nodes that had any in each round."""

    def __init__(self) -> None:
        self.shards: dict[int, set[int]] = {}
        self.rounds: list[set[int]] = []

    def of(self, *shards: int) -> set[int]:
        return {node for node, asked in self.shards.items() if asked & set(shards)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    noted, original = Asked(), GradientCoding.configure_train

    def noting(self: GradientCoding, *arguments: Any) -> Any:
        messages = list(original(self, *arguments))
        noted.rounds.append(set())
        for message in messages:
            shards: Any = message.content.config_records["fedgc"]["shard-ids"]
            noted.shards.setdefault(message.metadata.dst_node_id, set()).update(shards)
            if shards:
                noted.rounds[-1].add(message.metadata.dst_node_id)
        return messages

    monkeypatch.setattr(GradientCoding, "configure_train", noting)
    return noted


def silent(monkeypatch: pytest.MonkeyPatch, node: int, when: Callable[[int, float], bool]) -> None:
    """Let a node's replies be late for as long as `when` says so, after so many rounds and at an instant."""

    class Late(ChurningGrid):
        def _complete(self, job: Job) -> None:
            rounds = len(self.strategy.history) if self.strategy else 0
            if job.message.metadata.dst_node_id == node and when(rounds, self.clock.now()):
                self._schedule(Due(self.clock.now() + 0.5, "complete", job))
            else:
                super()._complete(job)

    monkeypatch.setattr("tests.test_churn.ChurningGrid", Late)


@SCHEDULES
@pytest.mark.parametrize("away", [0, 1, 5])
def test_limits_belong_to_a_partition_whoever_is_away_and_a_late_joiner_has_its_own(
    away: int, schedule: str, asked: Asked
) -> None:
    there = [100 + k for k in range(6) if k != away]
    limits = AssignmentConstraints(storage=[4] * 6, residency={0: [1, 2], 1: [1, 2]})  # two holders need all the room
    strategy, model = train(SIX, after(3, there, list(SIX)), constraints=limits, schedule=schedule)
    assert asked.of(0, 1) <= {101, 102}
    assert asked.rounds[0] == set(there) and asked.rounds[-1] == set(SIX)
    assert strategy.planning.nodes == tuple(SIX)
    assert model == pytest.approx(GOAL, abs=0.2)


@SCHEDULES
def test_the_one_client_that_may_hold_a_shard_does_while_another_is_away_for_good(schedule: str, asked: Asked) -> None:
    here = [100, 102, 103, 104, 105]
    strategy, _ = train(SIX, lambda done, now: here, constraints=ONLY_ON_2, load=1, schedule=schedule)
    assert asked.of(0) == asked.of(1) == {102}
    assert strategy.planning.nodes is not None
    assert list(strategy.planning.nodes[:3]) == [100, None, 102]


@pytest.mark.parametrize(
    ("partitions", "who"),
    [
        ({}, "a node that never answers"),
        ({106: 3}, "node 106 is not asked: nodes 102 and 106 both say that they are partition 3, and 102 was before"),
        ({106: 9}, "node 106 is not asked: the constraints do not name it: they are about partitions 0 to 5, and it"),
        ({106: 10**18}, "and it says that it is 1000000000000000000"),
        ({106: -1}, "and it says that it is -1"),
    ],
)
def test_one_odd_node_does_not_put_the_others_out_of_order(
    partitions: dict[int, int], who: str, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    limits = AssignmentConstraints(residency={0: [0], 1: [0]}, storage=ROOM)
    # Node 106 has no context where it tells no partition: what is sent to it is lost.
    _, model = train(TURNED | partitions, lambda done, now: [*TURNED, 106], constraints=limits, load=1)
    assert asked.of(0, 1) == {105}
    assert asked.of(*range(N_SHARDS)) <= set(TURNED)
    assert (who in caplog.text) == bool(partitions)
    assert caplog.text.count("is not asked") == len(partitions)
    assert model == pytest.approx(GOAL, abs=0.1)


def test_a_partition_far_off_may_hold_what_may_live_anywhere_and_costs_nothing(asked: Asked) -> None:
    """With residency alone there may be any number of clients; what they call themselves is only a name."""
    limits = AssignmentConstraints(residency={0: [2], 1: [2]})
    strategy, _ = train(SIX | {106: 10**18}, lambda done, now: [*SIX, 106], constraints=limits, load=1)
    assert asked.of(0, 1) == {102}
    assert asked.shards[106]
    assert strategy.planning.nodes == (*SIX, 106)


def test_room_is_waited_for_whose_partition_is_away(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    limits = AssignmentConstraints(storage=[2, 3, 0, 3, 2, 3])
    here = [100, 101, 102, 104, 105]
    _, model = train(SIX, lambda done, now: here if now < 80.0 else list(SIX), constraints=limits, load=1)
    assert "cannot be planned with the nodes that are there: storage must hold at least 12 shards" in caplog.text
    room = dict(zip(SIX, (2, 3, 0, 3, 2, 3), strict=True))
    assert all(len(shards) <= room[node] for node, shards in asked.shards.items())
    assert asked.shards[103]
    assert model == pytest.approx(GOAL, abs=0.1)


@SCHEDULES
@pytest.mark.parametrize("late", [False, True])
def test_shards_whose_only_client_is_not_there_at_the_start_are_waited_for(
    late: bool, schedule: str, asked: Asked, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it comes later, or is there and takes long to answer for the first time."""
    others = [100, 101, 103, 104, 105]
    if late:
        silent(monkeypatch, 102, lambda rounds, now: now < 80.0)
    _, model = train(
        SIX,
        lambda done, now: list(SIX) if late or now > 80.0 else others,
        constraints=ONLY_ON_2,
        load=1,
        schedule=schedule,
    )
    assert "round 1: cannot be planned with the nodes that are there: residency must allow" in caplog.text
    assert asked.of(0, 1) == {102}
    assert model == pytest.approx(GOAL, abs=0.1)
    assert len(asked.rounds) == 10


def test_waiting_for_them_has_its_limit(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "round 1: 0 of at least 1 others that can hold its shards are there after 5[0-5] s"
    with pytest.raises(TooFewNodesError, match=message):
        train(SIX, lambda done, now: [100, 101, 103, 104, 105], constraints=ONLY_ON_2, load=1, nodes_timeout=50.0)
    silent(monkeypatch, 102, lambda rounds, now: True)
    with pytest.raises(TooFewNodesError, match=message):
        train(SIX, lambda done, now: list(SIX), constraints=ONLY_ON_2, load=1, nodes_timeout=50.0)
    assert not asked.of(0, 1)


def test_limits_that_nobody_could_meet_are_told_at_once_while_some_are_away() -> None:
    limits = AssignmentConstraints(residency={0: [2]}, storage=ROOM)
    with pytest.raises(
        InfeasibleAssignmentError, match="residency must allow at least 2 clients for every shard; got 1"
    ):
        train(SIX, lambda done, now: [100, 101, 102, 103, 104], constraints=limits, load=2)


def test_nobody_is_asked_before_anyone_has_told_a_partition(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """All take long to start: the order of their ids is not a guess that residency may go by."""

    class Slow(ChurningGrid):
        def _complete(self, job: Job) -> None:
            if self.clock.now() < 40.0:
                self._schedule(Due(self.clock.now() + 0.5, "complete", job))
            else:
                super()._complete(job)

    monkeypatch.setattr("tests.test_churn.ChurningGrid", Slow)
    limits = AssignmentConstraints(residency={0: [0], 1: [0]})
    train(TURNED, lambda done, now: list(TURNED), constraints=limits, load=1)
    assert asked.of(0, 1) == {105}
    monkeypatch.setattr("tests.test_churn.ChurningGrid", ChurningGrid)
    with pytest.raises(TooFewNodesError, match="0 of at least 1 nodes that tell whom the constraints are about"):
        train(SIX, lambda done, now: [200, 201, 202], constraints=limits, load=1, nodes_timeout=30.0)


def test_without_partitions_the_order_of_ids_waits_for_as_many_as_limits_are_stated_for(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    limits = AssignmentConstraints(residency={0: [5]}, storage=ROOM)
    options: dict[str, Any] = {"constraints": limits, "load": 1, "start_timeout": 0.0}
    present = lambda done, now: list(SIX)[1:] if now < 30.0 else list(SIX)  # noqa: E731
    _, model = train(SIX, present, **options)
    assert asked.of(0) == {105}
    assert "limits or times are stated for 6 clients, by the order of the node ids as no node tells a" in caplog.text
    assert model == pytest.approx(GOAL, abs=0.1)
    with pytest.raises(TooFewNodesError, match="5 of at least 6 nodes, one for each client that limits or times"):
        train(SIX, lambda done, now: list(SIX)[1:], nodes_timeout=30.0, **options)
    caplog.clear()
    train(SIX, lambda done, now: list(SIX), rounds=1, **options)
    assert "by the order of the node ids" not in caplog.text


def test_times_belong_to_partitions_too() -> None:
    """By what is stated client 3 is often away: its partition is node 102, and with partition 1 away still is."""
    dropout = [0.0, 0.0, 0.0, 0.6, 0.0, 0.0]
    fleet = build_fleet({"model": "log-normal", "clients": 6, "median": 0.5, "dropout": dropout}, seed=1)
    strategy, _ = train(
        TURNED, lambda done, now: [105, 103, 102, 101, 100], timing=fleet, load=5, rounds=1, schedule="full"
    )
    plan = strategy.state.plan
    assert plan is not None and set(plan.node_ids) == {105, 103, 102, 101, 100}
    assert plan.node_ids[int(np.argmax(plan.straggle_prob))] == 102
    # Each of them does all twelve shards, which take as long as the deadline: half are late who are there.
    assert np.max(plan.straggle_prob) == pytest.approx(1.0 - 0.4 * 0.5, abs=0.05)


def test_the_same_nodes_with_other_partitions_are_planned_with_anew(asked: Asked) -> None:
    """All go and come back with their ids, and two have changed places: what they held is the other's to hold."""

    strategy, _ = train(SIX, lambda done, now: list(SIX), constraints=ONLY_ON_2, load=1, rounds=2)
    before, told = strategy.planning.nodes, dict(strategy.nodes)
    told[102], told[103] = replace(told[102], partition=3), replace(told[103], partition=2)
    strategy._meet({node: told[node] for node in (102, 103)}, list(SIX))
    strategy._plan_with(list(SIX))
    assert before == tuple(SIX) and strategy.planning.nodes == (100, 101, 103, 102, 104, 105)
    assert strategy.state.plan is None


@pytest.mark.parametrize("limits", [None, ONLY_ON_2])
def test_a_straggler_that_is_late_once_keeps_its_identity(
    limits: AssignmentConstraints | None,
    asked: Asked,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent(monkeypatch, 102, lambda rounds, now: rounds == 4 and now < 36.0)
    strategy, _ = train(
        SIX | {106: 2}, after(4, list(SIX), [*SIX, 106]), constraints=limits, load=1 if limits else 2, rounds=12
    )
    assert "come back" not in caplog.text
    assert 102 in asked.rounds[-1]
    both = "nodes 102 and 106 both say that they are partition 2"
    if limits is None:
        assert caplog.text.count(f"{both}: they count as two clients") == 1
        known = {one.node_id: one.rounds for one in strategy.state.reliability.describe([102, 106])}
        assert known[106] < known[102]
    else:
        assert asked.of(0, 1) == {102} and not asked.shards[106]
        assert caplog.text.count(f"node 106 is not asked: {both}, and 102 was before") == 1


def test_a_partition_is_taken_over_only_once_its_node_has_gone_and_given_back_if_it_answers_again(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    others = [100, 101, 103, 104, 105]

    def present(done: int, now: float) -> list[int]:
        return [*SIX, 106] if 3 <= done < 6 or done >= 10 else list(SIX) if done < 3 else [*others, 106]

    train(SIX | {106: 2}, present, constraints=ONLY_ON_2, load=1, rounds=16)
    holders = [nodes & {102, 106} for nodes in asked.rounds]
    assert holders[:6] == [{102}] * 6
    assert holders[6:10] == [{106}] * 4
    assert holders[-1] == {102} and holders[10:].index({102}) <= 2
    assert asked.of(0, 1) == {102, 106}
    told = [
        (record.levelname, record.getMessage()) for record in caplog.records if "partition 2" in record.getMessage()
    ]
    assert told == [
        ("WARNING", "node 106 is not asked: nodes 102 and 106 both say that they are partition 2, and 102 was before"),
        ("WARNING", "node 106 is node 102 come back: both say that they are partition 2, and node 102 has gone"),
        ("WARNING", "node 102 is not asked: nodes 106 and 102 both say that they are partition 2, and 106 was before"),
        ("WARNING", "node 102 is partition 2 again, and node 106 is not any more: it said so before, and answers"),
    ]


def test_one_that_has_left_the_grid_and_is_heard_of_late_is_not_gone() -> None:
    told = {7: NodeFacts(0.1, partition=3), 9: NodeFacts(0.1, partition=3)}
    partitions = Partitions()
    partitions.begin(dict(list(told.items())[:1]), ())
    assert partitions.settle(told, connected=[9, 7]) == {}
    assert partitions.settle(told, connected=[9]) == {9: 7}
    again = Partitions()
    again.begin(told, (9,))  # a resumed run goes on with whom the limits were about
    assert again.settle(told, connected=[7, 9]) == {} and dict(again.node_of) == {3: 9}
    assert again.settle(told, connected=[7, 9], answered=[9]) == {} and dict(again.node_of) == {3: 9}
    assert again.settle(told, connected=[7, 9], answered=[7]) == {} and dict(again.node_of) == {3: 7}


def test_a_resumed_run_knows_whom_its_limits_are_about(asked: Asked, tmp_path: Path) -> None:
    there = [100, 101, 102, 104, 105]
    options: dict[str, Any] = {"constraints": ONLY_ON_2, "load": 1, "checkpoints": tmp_path / "run"}
    train(SIX, lambda done, now: there, rounds=3, **options)
    strategy, _ = train(SIX, after(4, there, list(SIX)), rounds=8, resume=True, **options)
    assert asked.of(0, 1) == {102}
    assert len(strategy.history) == 8
    assert strategy.planning.nodes is not None and set(strategy.planning.nodes) == set(SIX)


def test_waiting_for_nodes_is_seen_in_the_status(tmp_path: Path) -> None:
    page, kept, seen = StatusPage(tmp_path / "status.html"), Statuses(), []

    def present(done: int, now: float) -> list[int]:
        if done == 4 and 400.0 < now < 500.0 and not seen:
            seen.append((data_of(page.data_path), Page(page.path).text))
        return [] if done == 4 and now < 500.0 else list(SIX)

    train(SIX, present, reporters=[page, kept])
    waiting: list[RunStatus] = [status for status in kept.all if status.waiting is not None]
    assert {status.phase for status in waiting} == {"waiting"} and {status.round_open for status in waiting} == {None}
    seconds = [status.waiting.seconds for status in waiting if status.waiting is not None]
    assert seconds[0] == 0.0 and len(seconds) > 40 and max(np.diff(seconds)) < 11.5
    assert kept.all[kept.all.index(waiting[-1]) + 1].phase == "training"
    (data, text), told = seen[0], waiting[0].waiting
    assert told is not None and (told.there, told.needed, told.what) == (0, 3, "nodes")
    assert data["phase"] == "waiting" and data["waiting"]["seconds"] + data["waiting"]["seconds_left"] == 3600.0
    assert "Waiting since 20" in text and "0 of at least 3 nodes are there" in text
    assert (kept.all[-1].phase, kept.all[-1].waiting) == ("ended", None)
    opened = [status.round_open for status in kept.all if status.round_open is not None]
    assert opened == list(range(1, 11))


def test_waiting_to_be_able_to_plan_is_seen_too() -> None:
    kept = Statuses()
    with pytest.raises(TooFewNodesError):
        train(
            SIX,
            after(3, list(SIX), [100, 101, 103]),
            constraints=ONLY_ON_2,
            load=1,
            nodes_timeout=50.0,
            reporters=[kept],
        )
    told = [status.waiting for status in kept.all if status.waiting is not None]
    assert len(told) == 5 and {one.what for one in told} == {"others that can hold its shards"}
    assert kept.all[-1].phase == "stopped" and kept.all[-1].waiting is None


@pytest.mark.parametrize("until", [5, 100])
def test_nodes_of_which_nothing_comes_end_the_run_in_the_end(until: int) -> None:
    """They are there, so that no round waits for nodes. Two silent rounds end nothing, however short the limit is."""

    class Deaf(ChurningGrid):
        def _complete(self, job: Job) -> None:
            if self.strategy is None or not 3 <= len(self.strategy.history) < until:
                super()._complete(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.test_churn.ChurningGrid", Deaf)
        if until == 5:
            strategy, _ = train(SIX, lambda done, now: list(SIX), nodes_timeout=1.0)
            assert [report.n_arrived == 0 for report in strategy.history][2:6] == [False, True, True, False]
        else:
            line = r"^round 9: nothing of use has come of any node for 5 rounds, in 30 s: look into their logs"
            with pytest.raises(TooFewNodesError, match=line):
                train(SIX, lambda done, now: list(SIX), nodes_timeout=29.0)
            # Nor does any number of them within the limit.
            assert len(train(SIX, lambda done, now: list(SIX))[0].history) == 10
