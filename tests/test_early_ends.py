"""What the early end of a round says of those whom it cuts off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedgc.completion_times import CompletionTimes, TimeObservation
from fedgc.deadline import FixedDeadline
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.fleets import Fleet, build_fleet
from fedgc.reliability import ReliabilityPosterior
from fedgc.round import CodedUpdate, Planning, RoundPlan, RoundState, finish_round, plan_round
from fedgc.round.after.evidence import outcomes_seen
from tests.apps import EXAMPLES, N_SHARDS, shard_app, steady, train

ARRAYS = {"w": np.zeros(2)}
NODES = (1, 2, 3, 4)
DEADLINE = 10.0
SILENT = 3  # client index


def planned(state: RoundState, schedule: str = "full") -> RoundPlan:
    rule = FixedDeadline(DEADLINE)
    return plan_round(
        state, NODES, Planning(load=2, decoder=OptimalUnbiasedDecoder(), schedule=schedule, deadline=rule)
    )


def reply(plan: RoundPlan, client: int, seconds: float) -> CodedUpdate:
    shards = plan.decoder.code.shards_of(client)
    rows = plan.decoder.code.rows_after(client, shards.size)
    return CodedUpdate({int(row): {"w": np.ones(2)} for row in rows}, shards, np.ones(shards.size), seconds)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_who_is_cut_off_and_never_heard_is_believed_less_and_less(schedule: str, sigma: float) -> None:
    rng = np.random.default_rng(3)
    state = RoundState(np.ones(8), ReliabilityPosterior(1.0, 1.0, conditional=False))
    believed = []
    for _ in range(40):
        plan = planned(state, schedule)
        believed.append(float(state.reliability.straggle_prob(NODES)[SILENT]))
        seconds = np.exp(sigma * rng.standard_normal(3)) * [1.0, 1.3, 1.6]
        replies = {client: reply(plan, client, float(s)) for client, s in enumerate(seconds)}
        state, _ = finish_round(state, plan, replies, arrays=ARRAYS, waited=float(seconds.max()))
    assert believed[0] == 0.5
    assert (np.diff(believed) >= -1e-9).all()
    assert believed[-1] > 0.75
    assert state.reliability.straggle_prob(NODES)[:SILENT].max() < 0.1


def test_who_has_been_heard_to_be_slow_is_not_doubted_for_being_cut_off() -> None:
    """It takes 8 s of 10: a round that ends after 2 s says nothing of it, of a stranger it does."""
    seen = [TimeObservation(node, 4, 1.0 + 0.05 * k, fixed_seconds=0.1) for node in NODES[:3] for k in range(10)]
    slow = [TimeObservation(NODES[SILENT], 4, 8.0 + 0.05 * k, fixed_seconds=0.1) for k in range(5)]
    cut = [TimeObservation(NODES[SILENT], 4, 2.0, censored=True) for _ in range(20)]
    would = {}
    for name, more in {"slow": slow + cut, "never heard": cut}.items():
        state = RoundState(np.ones(8), ReliabilityPosterior(9.0, 1.0, conditional=False))
        plan = planned(state)  # four shards each, whose blocks would be sized by speed had the times been known before
        state = replace(state, completion_times=CompletionTimes().update(seen + more))
        outcomes = outcomes_seen(state, plan, {client: reply(plan, client, 1.0) for client in range(3)}, 2.0)
        would[name] = float(outcomes[NODES[SILENT]])
        assert [outcomes[node] for node in NODES[:3]] == [True] * 3
        # What is seen of a round that has lasted until its deadline is seen.
        assert outcomes_seen(state, plan, {}, DEADLINE) == dict.fromkeys(NODES, False)
    assert would["slow"] == pytest.approx(0.9, abs=0.01)
    assert would["never heard"] < 0.85


def fleet(slowest: float, sigma: float) -> Fleet:
    return build_fleet({"model": "log-normal", "clients": 6, "sigma": sigma, "median": [0.5] * 5 + [slowest]}, seed=1)


@pytest.mark.parametrize("gain", [0.2, 1.0])
@pytest.mark.parametrize(("slowest", "sigma"), [(7.0, 0.0), (500.0, 0.5)])
def test_a_client_that_never_makes_the_deadline_is_found_out_though_rounds_end_before_it(
    slowest: float, sigma: float, gain: float
) -> None:
    """It takes 14 s and more, where rounds would last 10 s and end after one or two, once its partner has come."""
    options: dict[str, Any] = {"num_shards": N_SHARDS, "shard_examples": EXAMPLES, "load": 2, "deadline": DEADLINE}
    strategy = GradientCoding(FedAvg(fraction_evaluate=0.0), reassignment_gain=gain, **options)
    train(strategy, fleet(slowest, sigma), rounds=60)
    assert sum(report.seconds < DEADLINE for report in strategy.history) > 50  # type: ignore[operator]
    assert not any(report.arrived[5] for report in strategy.history)
    believed = np.array([report.straggle_prob[5] for report in strategy.history])
    # At first it is taken for one of this reliable fleet.
    assert believed[3] < 0.2
    assert believed[-1] > 0.4
    if gain == 1.0:  # Blocks stay as they are, and what is believed comes from who came.
        assert believed[-1] > believed[20] + 0.1
    # Whatever plans go by, who came tells the same.
    outcomes = strategy.state.reliability.straggle_prob(range(100, 106))
    assert outcomes[5] > 0.3 > 0.2 > outcomes[:5].max()


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_who_fails_has_missed_however_early_the_round_ends(schedule: str) -> None:
    """Client 0 raises an error in each round, which ends as soon as all have been heard, far before its deadline."""

    def fail(reply: Message, partition: int) -> Message | None:
        if partition == 0:
            raise RuntimeError("battery empty")
        return None

    def believed(app: ClientApp, dropout: float) -> np.ndarray:
        strategy = GradientCoding(
            FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
            num_shards=N_SHARDS,
            deadline=50.0,
            early_end=False,
            schedule=schedule,
            shard_examples=EXAMPLES,
        )
        train(strategy, steady(6, dropout=[dropout, *[0.0] * 5]), rounds=3, app=app)
        assert [report.n_arrived for report in strategy.history] == [5, 5, 5]
        assert max(report.seconds or 0.0 for report in strategy.history) < 50.0 or dropout
        return strategy.state.reliability.straggle_prob(range(100, 106))

    prob, silent = believed(shard_app(fail), 0.0), believed(shard_app(), 1.0)
    assert prob[0] > 0.5 > 0.3 > prob[1:].max()
    # As one of which nothing comes at all, for whom a round lasts until its deadline.
    np.testing.assert_allclose(prob, silent, atol=0.02)
