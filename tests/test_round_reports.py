"""Clients whose replies cannot be used are set aside, and come back; what a round tells about itself."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from fedgc.strategies.nodes.set_aside import SetAside
from fedgc.strategies.reporting.report import METRICS, RoundReport
from flwr.app import Array, Message
from flwr.serverapp.strategy import FedAvg

from fedgc.assignment import AssignmentConstraints
from fedgc.codes import WorkLists
from fedgc.coherence import KnownCoherence
from fedgc.fleets import build_fleet
from fedgc.reliability import ReliabilityPosterior
from fedgc.round import plan_round
from tests.apps import EXAMPLES, N_SHARDS, shard_app, train


def coding(**options: Any) -> GradientCoding:
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    return GradientCoding(inner, num_shards=N_SHARDS, deadline=10.0, shard_examples=EXAMPLES, **options)


def steady() -> Any:
    return build_fleet({"model": "log-normal", "clients": 6, "sigma": 0.0, "median": 1.0}, seed=1)


def test_a_node_is_set_aside_for_longer_each_time_and_a_good_reply_clears_it() -> None:
    aside = SetAside(after=3)
    asked = []
    for server_round in range(1, 40):
        if not aside.among([1, 7], server_round):
            asked.append(server_round)
            aside.note(server_round, good=[1], bad=[7])
    # After the third bad reply: 1 round, then 2, 4, 8, 16.
    assert asked == [1, 2, 3, 5, 8, 13, 22, 39]
    aside.note(40, good=[7], bad=[])
    assert aside.among([1, 7], 41) == []
    for server_round in (41, 42):
        aside.note(server_round, good=[], bad=[7])
        assert aside.among([1, 7], server_round + 1) == []


def test_if_all_are_bad_all_are_asked() -> None:
    aside = SetAside(after=1)
    aside.note(1, good=[], bad=[3, 4])
    assert aside.among([3, 4], 2) == []
    assert aside.among([3, 4, 5], 2) == [3, 4]
    with pytest.raises(ValueError, match="after must be an integer of at least 1; got 0"):
        SetAside(after=0)


def test_a_client_that_sends_nonsense_is_set_aside_and_can_come_back(caplog: pytest.LogCaptureFixture) -> None:
    calls = {"n": 0}

    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == 2:
            calls["n"] += 1
            if calls["n"] <= 4:
                reply.content["fedgc"]["shard-examples"] = [-1]
        return reply

    strategy = coding(load=1)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(strategy, steady(), app=shard_app(spoil), rounds=9)
    asked = [report.n_clients for report in strategy.history]
    # Bad in rounds 1 to 3, aside in 4, bad in 5, aside in 6 and 7, good from then on.
    assert asked == [6, 6, 6, 5, 6, 5, 5, 6, 6]
    assert [len(report.rejected) for report in strategy.history] == [1, 1, 1, 0, 1, 0, 0, 0, 0]
    assert "node 102 is not asked: its last replies could not be used" in caplog.text
    assert result.arrays is not None


def test_what_is_lost_on_the_way_is_not_held_against_a_client() -> None:
    settings = {"clients": 6, "sigma": 0.0, "median": 1.0, "loss_detection": 2.0, "dropout": 0.6}
    fleet = build_fleet({"model": "log-normal", **settings}, seed=3)
    strategy = coding(load=2)
    train(strategy, fleet, rounds=12)
    assert sum(len(report.rejected) for report in strategy.history) > 15
    assert {report.n_clients for report in strategy.history} == {6}


def test_a_round_reports_itself_in_flowers_metrics() -> None:
    strategy = coding(load=2, early_end=False)
    result, _ = train(strategy, steady(), rounds=2)
    metrics, report = result.train_metrics_clientapp[1], strategy.history[0]
    assert metrics["fedgc-asked"] == metrics["fedgc-arrived"] == 6
    assert metrics["fedgc-load"] == 2.0
    assert metrics["fedgc-shards-recovered"] == N_SHARDS
    assert metrics["fedgc-wasted"] == 0.5  # everyone came, so that every second copy was not needed
    assert metrics["fedgc-error-observed"] == report.model_residual_error
    assert metrics["fedgc-error-predicted"] == report.predicted_residual_error
    assert metrics["fedgc-round-seconds"] == report.seconds == pytest.approx(2.0)
    assert metrics["fedgc-straggle-prob"] == pytest.approx(float(np.mean(report.straggle_prob)))
    assert "loss" in metrics  # beside the clients' own
    assert [name for name in METRICS if name not in metrics] == ["fedgc-variance-factor"]  # nothing is rounded


def test_every_number_is_described() -> None:
    described = re.findall(r"^ {8}([a-z-]+)  +\S", str(RoundReport.metrics.__doc__), re.MULTILINE)
    assert [f"fedgc-{name}" for name in described] == list(METRICS)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    named = dict.fromkeys(name for name in re.findall(r"`(fedgc-[a-z-]+)`", readme) if name in METRICS)
    assert list(named) == list(METRICS)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("load", [1, 2, 3])
def test_recovered_and_wasted_are_what_the_replies_say(schedule: str, load: int) -> None:
    """Counted from the shard ids of the replies themselves."""
    sent: dict[tuple[int, int], list[int]] = {}

    def note(reply: Message, partition: int) -> Message | None:
        sent[int(reply.metadata.group_id), 100 + partition] = list(reply.content["fedgc"]["shard-ids"])
        return None

    strategy = coding(load=load, schedule=schedule)
    settings = {"clients": 6, "sigma": 0.9, "median": [3.0, 5.0, 5.0, 6.0, 9.0, 12.0]}
    fleet = build_fleet({"model": "log-normal", **settings}, seed=2)
    result, _ = train(strategy, fleet, app=shard_app(note), rounds=12)
    seen_waste = set()
    for report in strategy.history:
        came = [node for node, here in zip(report.node_ids, report.arrived, strict=True) if here]
        done = [shard for node in came for shard in sent[report.server_round, node]]
        metrics = result.train_metrics_clientapp[report.server_round]
        assert metrics["fedgc-shards-done"] == len(done)
        assert metrics["fedgc-shards-recovered"] == len(set(done))
        missing = set(range(N_SHARDS)) - set(done)
        blocks = [set(np.flatnonzero(report.block_of_shard == k)) for k in np.unique(report.block_of_shard)]
        assert metrics["fedgc-blocks"] == len(blocks)
        if schedule == "full":  # sized by speed once times have been seen
            assert len(blocks) == 6 // load or report.server_round > 1
            assert all(set(sent[report.server_round, node]) in blocks for node in came)
        assert metrics["fedgc-blocks-recovered"] == sum(not block & missing for block in blocks)
        late = metrics["fedgc-shards-late"]
        assert late == sum(report.late) and metrics["fedgc-late"] == len(report.late)
        seen = len(done) + late  # type: ignore[operator]
        wasted = (len(done) - len(set(done)) + late) / seen if seen else 0.0  # type: ignore[operator]
        assert metrics["fedgc-wasted"] == pytest.approx(wasted, abs=1e-15)
        seen_waste.add(wasted)
    assert len(seen_waste) > (1 if load > 1 else 0)


def test_what_is_expected_of_work_lists_is_that_the_first_shard_is_done() -> None:
    """Not that a client replies, which it does with empty hands too."""
    strategy = coding(load=2, schedule="work-list")
    settings = {"clients": 6, "sigma": 0.9, "median": [3.0, 5.0, 5.0, 6.0, 9.0, 12.0]}
    train(strategy, build_fleet({"model": "log-normal", **settings}, seed=2), rounds=12)
    plan, last = strategy.state.plan, strategy.history[-1]
    assert plan is not None and isinstance(plan.code, WorkLists)
    first_shard = [int(plan.code.rows_of(client)[0]) for client in range(6)]
    np.testing.assert_allclose(last.straggle_prob, 1.0 - plan.arrivals.row_probability[first_shard], atol=1e-12)
    assert (last.straggle_prob > plan.straggle_prob + 0.01).any()


def test_late_replies_are_wasted_work_of_the_round_in_which_they_come() -> None:
    """The slow client takes 14 s and works off one message after the other; each round lasts 10 s."""
    fleet = build_fleet({"clients": 6, "model": "log-normal", "median": [5.0] * 5 + [14.0], "sigma": 0.0}, seed=1)
    strategy = coding(load=1)
    train(strategy, fleet, rounds=4, backlog=True)
    # Sent at 0, 10, 20 s; done at 14 and 28 s, and at 42 s, when nobody listens any more.
    assert [report.late for report in strategy.history] == [(), (1,), (1,), ()]
    assert [report.metrics["fedgc-wasted"] for report in strategy.history] == pytest.approx([0, 1 / 6, 1 / 6, 0])


def test_the_reliability_is_told_as_it_was_before_the_round() -> None:
    strategy = coding(load=2, early_end=False)
    fleet = build_fleet({"model": "log-normal", "clients": 6, "sigma": 0.0, "dropout": [0.9, *[0.05] * 5]}, seed=3)
    train(strategy, fleet, rounds=20)
    first, last = strategy.history[0], strategy.history[-1]
    assert first.metrics["fedgc-straggle-prob-max"] == first.metrics["fedgc-straggle-prob"]  # all are strangers
    assert last.metrics["fedgc-straggle-prob-max"] == last.straggle_prob[0] > 0.7
    assert last.metrics["fedgc-likely-stragglers"] == 1
    assert last.metrics["fedgc-arrived-predicted"] == pytest.approx(6 * (1 - last.metrics["fedgc-straggle-prob"]))


def test_an_empty_round_reports_itself_too() -> None:
    strategy = coding(load=1)
    fleet = build_fleet({"model": "log-normal", "clients": 6, "sigma": 0.0, "median": 50.0}, seed=1)
    result, _ = train(strategy, fleet, rounds=1)
    assert result.train_metrics_clientapp[1]["fedgc-arrived"] == 0
    assert result.train_metrics_clientapp[1]["fedgc-wasted"] == 0.0


@pytest.mark.parametrize(("schedule", "off"), [("full", 0.01), ("work-list", 0.01), ("full", 1e-6)])
def test_copies_that_differ_are_reported(schedule: str, off: float, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == 3:
            for name in list(reply.content.array_records):
                record = reply.content.array_records[name]
                record["weight"] = Array(record["weight"].numpy() * (1.0 + off))
        return reply

    strategy = coding(load=2, schedule=schedule, early_end=False)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(strategy, steady(), app=shard_app(spoil))
    pairs = strategy.history[0].disagreements
    if off < 1e-4:  # another order of summation
        assert pairs == ()
        return
    assert pairs and all(103 in (one, other) and apart > 0.001 for one, other, apart in pairs)
    assert result.train_metrics_clientapp[1]["fedgc-disagreements"] == len(pairs)
    assert "should have sent the same sum" in caplog.text


def test_the_summary_tells_the_first_plan_and_its_predicted_error(caplog: pytest.LogCaptureFixture) -> None:
    strategy = coding(load=2)
    with caplog.at_level(logging.INFO, logger="flwr"):
        strategy.summary()
        assert "Plan: made when nodes are there" in caplog.text and "Block" not in caplog.text
        train(strategy, steady())
    report = strategy.history[0]
    assert f"Plan: 6 of 6 nodes, load 2, predicted residual error {report.predicted_residual_error:.3g}" in caplog.text


def plan_lines(strategy: GradientCoding, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the summary says from the plan on."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="flwr"):
        strategy.summary()
    lines = [r.getMessage().lstrip("\t│├└─ ") for r in caplog.records if r.name == "flwr.fedgc"]
    return lines[next(k for k, line in enumerate(lines) if line.startswith("Plan: ")) :]


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("load", [1, 2])
def test_where_times_are_given_the_plan_is_there_before_the_first_round(
    schedule: str, load: int, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"clients": 6, "sigma": 0.5, "median": [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]}
    fleet = build_fleet({"model": "log-normal", **settings}, seed=2)
    strategy = coding(load=load, schedule=schedule, timing=fleet, coherence=KnownCoherence())
    told = plan_lines(strategy, caplog)
    assert strategy.state.plan is None  # nothing has begun
    train(strategy, fleet)
    report, plan = strategy.history[0], strategy.state.plan
    assert plan is not None and plan.assignment is not None
    asked = f"{report.n_clients} of 6 clients, load {report.load:.3g}"
    assert told[0] == (f"Plan: {asked}, predicted residual error {report.predicted_residual_error:.3g}, deadline 10 s")
    blocks = [line for line in told if line.startswith("Block ")]
    assert len(blocks) == report.n_blocks
    for line, block in zip(blocks, plan.assignment.blocks, strict=True):
        numbers = [[int(n) for n in re.findall(r"\d+", part)] for part in line.split(": ")[1].split(" with ")]
        assert numbers == [list(block.members), list(block.shards)]
    lists = [re.findall(r"\d+", line.split(": ", 1)[1]) for line in told if line.startswith("Work list of client")]
    assert len(lists) == (report.n_clients if schedule == "work-list" else 0)
    for client, shards in enumerate(lists):
        assert [int(shard) for shard in shards] == plan.code.shards_of(client).tolist()
    if lists and load == 2:
        assert any(", then backup work: " in line for line in told)
    # And when nodes are there, they are named instead, of the same plan.
    (later,) = [line for line in plan_lines(strategy, caplog) if line.startswith("Block 0: ")]
    assert re.findall(r"\d+", later.split(": ")[1])[0] == str(100 + plan.assignment.blocks[0].members[0])


def test_where_reliability_is_given_the_plan_is_for_its_nodes(caplog: pytest.LogCaptureFixture) -> None:
    posterior = ReliabilityPosterior(1.0, 1.0, conditional=False)
    for _ in range(20):
        posterior = posterior.update({11: True, 12: True, 13: False, 14: True})
    strategy = coding(load=2, reliability=posterior, coherence=KnownCoherence())
    told = plan_lines(strategy, caplog)
    assert told[0].startswith("Plan: 4 of 4 nodes, load 2, predicted residual error 0.")
    members = [[int(n) for n in re.findall(r"\d+", line.split(" with ")[0])[1:]] for line in told[1:3]]
    assert sorted(node for block in members for node in block) == [11, 12, 13, 14]
    stranger = coding(load=2, coherence=KnownCoherence()).state
    plan = plan_round(replace(stranger, reliability=posterior), [11, 12, 13, 14], strategy.planning)
    assert f"predicted residual error {plan.decoder.residual_error:.3g}" in told[0]


def test_of_large_fleets_the_summary_names_a_few(caplog: pytest.LogCaptureFixture) -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 120, "sigma": 0.5}, seed=2)
    inner = FedAvg(fraction_evaluate=0.0)
    strategy = GradientCoding(inner, num_shards=400, deadline=10.0, load=40, schedule="work-list", timing=fleet)
    told = plan_lines(strategy, caplog)
    assert len(told) < 20 and all(len(line) < 300 for line in told)
    assert "... and 114 more work lists" in told
    assert " and 28 more with shards " in told[1]


def test_a_plan_that_cannot_be_made_is_told(caplog: pytest.LogCaptureFixture) -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 3}, seed=2)
    limits = AssignmentConstraints(storage=[1, 1, 1])
    told = plan_lines(coding(schedule="work-list", timing=fleet, constraints=limits), caplog)
    assert len(told) == 1 and told[0].startswith("Plan: storage ")
