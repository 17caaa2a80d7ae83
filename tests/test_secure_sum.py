"""Secure sums: the sum of what arrived and who sent it are all that the server needs, on the embedded runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding, SecureSum
from fedgc.strategies.reporting.log import round_line
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, Result, Strategy
from hypothesis import given
from hypothesis import strategies as st

from fedgc.deadline import QuantileDeadline
from fedgc.fixed_point import add_modulo, from_fixed_point, largest_entry, to_fixed_point, zero_sum
from fedgc.reliability import ReliabilityPosterior
from fedgc.simulation import VirtualRun, run_virtual
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, shard_app, steady, train
from tests.secure_sums import NODES, ROUNDS, assert_same, coding, run, stragglers


@pytest.fixture(scope="module")
def plain() -> tuple[Result, GradientCoding, VirtualRun]:
    return run(False)


@pytest.mark.parametrize(
    ("decoder", "load"),
    [("fixed", 1), ("fixed", 3), ("fixed-aligned", 2), ("fixed-general", 2), ("inverse-probability", 2), ("sum", 2)],
)
def test_the_sum_alone_gives_the_model_that_single_replies_give(decoder: str, load: int) -> None:
    expected, one_by_one, _ = run(False, decoder=decoder, load=load)
    result, strategy, _ = run(True, decoder=decoder, load=load)
    assert_same(result, expected, bits=False)
    assert [report.n_arrived for report in strategy.history] == [report.n_arrived for report in one_by_one.history]


def test_weights_may_be_capped(plain: tuple[Result, GradientCoding, VirtualRun]) -> None:
    expected, _, _ = run(False, max_weight=0.8)
    result, strategy, _ = run(True, max_weight=0.8)
    assert_same(result, expected, bits=False)
    assert max(report.coverage.max() for report in strategy.history) < max(r.coverage.max() for r in plain[1].history)


def test_an_inner_strategy_with_moments_takes_the_same_steps() -> None:
    def adam() -> Strategy:
        return FedAdam(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, eta=0.1, tau=1e-2)

    def models(secure_sum: bool) -> Result:
        return train(coding(adam(), secure_sum=secure_sum), stragglers(), rounds=ROUNDS)[0]

    assert_same(models(True), models(False), bits=False)


def test_what_is_learnt_of_the_clients_is_what_is_learnt_otherwise() -> None:
    """Late replies, the ends of rounds and a learnt deadline included."""
    options = {"deadline": QuantileDeadline(0.7, initial=5.0), "load": 2}
    _, one_by_one, expected = run(False, **options)
    _, strategy, trace = run(True, **options)
    assert trace.seconds == expected.seconds
    for report, other in zip(strategy.history, one_by_one.history, strict=True):
        np.testing.assert_array_equal(report.straggle_prob, other.straggle_prob)
        assert (report.deadline, report.seconds) == (other.deadline, other.seconds)
    left, right = strategy.state.completion_times.history, one_by_one.state.completion_times.history
    assert left is not None
    assert right is not None
    np.testing.assert_array_equal(left.seconds, right.seconds)


@pytest.mark.parametrize(
    ("options", "first", "warned"),
    [
        ({}, 2.0, True),
        ({"load": 1}, 2.0, True),
        ({"schedule": "work-list"}, 3.2, True),
        ({"reliability": ReliabilityPosterior(prior_arrivals=9, prior_misses=1)}, 1.11, False),
        ({"timing": steady(20)}, 1.0, False),
        ({"timing": steady(20), "schedule": "work-list"}, 1.0, False),
    ],
)
def test_the_first_aggregate_of_a_fleet_that_never_straggles(
    options: dict[str, Any], first: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is as long as the prior says, and the log, once, by how much; the README has these numbers."""
    app, server = ClientApp(), ServerApp()

    @app.train()
    @gradient_coded(num_shards=40)
    def _(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(10, delta={"w": np.ones(1)})

    models: list[float] = []
    given = {"num_shards": 40, "shard_examples": [10] * 40, "deadline": 30.0, "secure_sum": True, "coherence": None}

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"w": Array(np.zeros(1))})
        coding(**{**given, **options}).start(
            grid, start, num_rounds=2, evaluate_fn=lambda _, arrays: models.append(float(arrays["w"].numpy()[0]))
        )

    run_virtual(server, app, steady(20))
    assert models[1] == pytest.approx(first, abs=0.01)
    assert models[2] - models[1] == pytest.approx(1.06 if warned else first, abs=0.02)
    said = "round 1: weights are settled while nothing is known of the clients: if all come, the aggregate is "
    assert caplog.text.count(f"{said}{first:.1f} ") == caplog.text.count("weights are settled while") == warned


def test_a_round_ends_once_everyone_has_come() -> None:
    _, strategy, trace = run(True, None, steady(median=[0.5] * 6))
    assert trace.seconds == ROUNDS * 1.0
    assert [report.n_arrived for report in strategy.history] == [6] * ROUNDS


def test_the_report_says_that_only_the_sum_was_seen() -> None:
    fleet, begin = steady(), coding(coherence=None).state.coherence
    _, one_by_one, _ = run(False, None, fleet, rounds=1, deadline=50.0, coherence=None)
    _, strategy, _ = run(True, None, fleet, rounds=1, deadline=50.0, coherence=None)
    other, report = one_by_one.history[0], strategy.history[0]
    assert (other.sum_only, report.sum_only) == (False, True)
    assert "fedgc-disagreements" in other.metrics
    assert "fedgc-disagreements" not in report.metrics
    assert "(of the model; only the sum was seen)" in round_line(report)
    assert "(of the model" not in round_line(other)
    assert other.model_residual_error == report.model_residual_error
    # Nothing is learnt of how large and how alike the updates are.
    gram = begin.gram(np.ones(3))
    np.testing.assert_array_equal(strategy.state.coherence.gram(np.ones(3)).matrix, gram.matrix)
    assert (one_by_one.state.coherence.gram(np.ones(3)).matrix != gram.matrix).any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.astype(np.float64), "array 'weight' must be uint64 of shape (2, 2); got float64 of shape (2, 2)"),
        (lambda w: w.ravel(), "array 'weight' must be uint64 of shape (2, 2); got uint64 of shape (4,)"),
    ],
)
def test_a_reply_that_cannot_be_added_is_left_out(change: Callable[..., Any], reason: str) -> None:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == 2:
            reply.content["arrays"]["weight"] = Array(change(reply.content["arrays"]["weight"].numpy()))
        return reply

    _, strategy, _ = run(True, shard_app(spoil), steady(), rounds=1, deadline=50.0)
    report = strategy.history[0]
    assert report.n_arrived == 5
    assert list(report.rejected) == [NODES[2]]
    assert report.rejected[NODES[2]] == reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e12])
def test_a_client_refuses_to_send_what_would_spoil_the_sum(bad: float, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    app = ClientApp()

    def update(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, context: Context) -> ShardUpdate:
        value = bad if context.node_id == NODES[1] else 0.5
        delta = {name: np.full_like(array.numpy(), value) for name, array in arrays.items()}
        return ShardUpdate(EXAMPLES[shard_id], delta=delta)

    app.train()(gradient_coded(num_shards=N_SHARDS)(update))
    result, strategy, _ = run(True, app, steady(), rounds=1, deadline=50.0)
    assert strategy.history[0].n_arrived == 5
    assert "must be at most" in strategy.history[0].rejected[NODES[1]]
    assert all(np.isfinite(value).all() for value in arrays_of(result.arrays).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "optimal-unbiased"}, r"decoder must be one of fixed, fixed-aligned, .* got 'optimal-unbiased'"),
        ({"decoder": "optimal-unbiased", "max_weight": 3.0}, r"decoder must be one of .*weights up to 3'"),
        ({"decoder": "scaled-mean"}, r"decoder must be one of .* for secure_sum; got 'scaled-mean'"),
        (
            {"schedule": "work-list", "sums": "whole", "decoder": "sum"},
            r"sums must be 'shard' for secure_sum: .* 'whole'",
        ),
        (
            {"schedule": "work-list", "decoder": "optimal-unbiased"},
            r"must be one of fixed, normalised-sum, sum for sec",
        ),
        ({"memory": True}, r"memory must be False for secure_sum"),
        ({"shard_examples": None}, r"shard_examples must be given for secure_sum"),
        ({"secure_sum": "yes"}, r"secure_sum must be True, False or a SecureSum; got 'yes'"),
    ],
)
def test_options_in_the_way_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coding(**{"secure_sum": True, **options})


def test_numbers_of_bits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="fractional_bits must be an integer from 8 to 48; got 60"):
        SecureSum(fractional_bits=60)
    with pytest.raises(ValueError, match=r"entries of array 'w' must be at most 2 in a secure sum; got 3"):
        to_fixed_point({"w": np.array([1.0, -3.0])}, 32, largest=2.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_sums_are_exact_but_for_the_rounding_of_each_term(terms: list[float], random: Any) -> None:
    """Against rational arithmetic; in any order, bit for bit, and without a warning from numbers below zero."""
    largest = largest_entry(32, len(terms))
    totals = []
    for _ in range(2):
        total = zero_sum({"w": np.zeros(()), "v": np.zeros(2, np.float32)})
        random.shuffle(terms)
        for term in terms:
            add_modulo(total, to_fixed_point({"w": np.array(term), "v": np.full(2, term)}, 32, largest))
        totals.append(from_fixed_point(total, 32))
    error = abs(sum(map(Fraction, terms)) - Fraction(float(totals[0]["w"])))
    assert error <= Fraction(len(terms), 2**33)
    assert totals[0]["w"] == totals[1]["w"] == totals[1]["v"][1]
