"""Adaptive strategies that are told of the decoding's noise, in real Flower messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding, VarianceAwareFedAdam, VarianceAwareFedYogi
from fedgc.strategies.resuming.inner_state import inner_to_tree
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedYogi, Strategy

from fedgc.coherence import KnownCoherence
from fedgc.reliability import ReliabilityPosterior
from fedgc.schemes import CODES
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, initial_arrays, shard_app, shard_delta, steady, train

APART = KnownCoherence(energy=1.0, overlap=0.0)
#: Every client comes in half of the rounds, as far as is known.
HALF = ReliabilityPosterior(prior_arrivals=1e9, prior_misses=1e9)
CERTAIN = ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)


def coding(strategy: Strategy, **options: Any) -> GradientCoding:
    return GradientCoding(
        strategy, **{"num_shards": N_SHARDS, "deadline": 10.0, "shard_examples": EXAMPLES, "load": 1, **options}
    )


def without(*partitions: int) -> Any:
    """An app of which these partitions' replies cannot be used."""

    def spoil(reply: Message, partition: int) -> None:
        if partition in partitions:
            reply.content.metric_records["metrics"]["num-examples"] = -1

    return shard_app(spoil)


@pytest.mark.parametrize(("own", "plain"), [(VarianceAwareFedAdam, FedAdam), (VarianceAwareFedYogi, FedYogi)])
def test_what_is_not_told_changes_nothing(own: Callable[..., Strategy], plain: Callable[..., Strategy]) -> None:
    for around in (lambda one: one, lambda one: coding(one, reliability=HALF)):
        first, _ = train(around(own(second_moment="decoded", fraction_evaluate=0.0)), steady(), rounds=3)
        other, _ = train(around(plain(fraction_evaluate=0.0)), steady(), rounds=3)
        for name, value in arrays_of(other.arrays).items():
            np.testing.assert_array_equal(arrays_of(first.arrays)[name], value)


@pytest.mark.parametrize("second_moment", ["subtract", "scale", "second-track"])
@pytest.mark.parametrize("coherence", [APART, KnownCoherence(energy=1.0, overlap=0.5)], ids=["apart", "alike"])
@pytest.mark.parametrize(("own", "plain"), [(VarianceAwareFedAdam, FedAdam), (VarianceAwareFedYogi, FedYogi)])
def test_where_nobody_straggles_the_steps_are_flowers(
    own: Callable[..., Strategy], plain: Callable[..., Strategy], second_moment: str, coherence: Any
) -> None:
    other, _ = train(plain(fraction_evaluate=0.0), steady(), rounds=4)
    inner = own(second_moment=second_moment, fraction_evaluate=0.0)
    strategy = coding(inner, reliability=CERTAIN, load=2, coherence=coherence)
    result, _ = train(strategy, steady(), rounds=4)
    for name, value in arrays_of(other.arrays).items():
        assert np.abs(value - arrays_of(initial_arrays())[name]).max() > 0.02
        np.testing.assert_allclose(arrays_of(result.arrays)[name], value, atol=1e-6)


def v_after_a_round(strategy: Any, app: Any, **options: Any) -> dict[str, Any]:
    train(coding(strategy, early_end=False, coherence=APART, **options), steady(), app=app)
    return {name: value / (1.0 - strategy.beta_2) for name, value in strategy.v_t.items()}


def test_the_second_moment_is_the_square_less_what_the_arrivals_tell_of_its_variance() -> None:
    """Of six clients with one shard each, four come, and each of them counts twice."""
    came, start = [0, 1, 3, 4], arrays_of(initial_arrays())
    shares = {shard: np.float64(EXAMPLES[shard]) / sum(EXAMPLES) for shard in came}
    updates = [{name: shares[s] * value for name, value in shard_delta(s, start).items()} for s in came]
    strategy = VarianceAwareFedAdam(second_moment="subtract", fraction_evaluate=0.0)
    squares = v_after_a_round(strategy, without(2, 5), reliability=HALF)
    decoded = v_after_a_round(
        VarianceAwareFedAdam(second_moment="decoded", fraction_evaluate=0.0), without(2, 5), reliability=HALF
    )
    scaled = v_after_a_round(
        VarianceAwareFedAdam(second_moment="scale", fraction_evaluate=0.0), without(2, 5), reliability=HALF
    )
    track = v_after_a_round(
        VarianceAwareFedAdam(second_moment="second-track", fraction_evaluate=0.0), without(2, 5), reliability=HALF
    )
    for name in start:
        d = sum(2.0 * update[name] for update in updates)
        expected = d**2 - sum(2.0 * (2.0 - 1.0) * update[name] ** 2 for update in updates)
        assert (expected < 0.9 * d**2).any()
        np.testing.assert_allclose(squares[name], np.maximum(expected, 0.0), rtol=1e-5)
        np.testing.assert_allclose(decoded[name], d**2, rtol=1e-5)
        np.testing.assert_allclose(scaled[name], d**2 / 2.0, rtol=1e-5)  # every shard's variance is its square
        np.testing.assert_allclose(track[name], (d / 2.0) ** 2, rtol=1e-5)  # each once
    assert strategy._squares == {}
    assert inner_to_tree(strategy)[1] == {}  # all that it knows can be saved


def test_other_strategies_are_sent_nothing_more() -> None:
    seen: list[set[str]] = []

    class Looks(FedAvg):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            replies = list(replies)
            seen.extend(set(reply.content) for reply in replies)
            return super().aggregate_train(server_round, replies)

    train(coding(Looks(fraction_evaluate=0.0)), steady())
    assert seen == [{"arrays", "metrics"}]


def test_work_lists_have_a_scaled_second_moment() -> None:
    inner = VarianceAwareFedAdam(second_moment="scale", fraction_evaluate=0.0)
    train(coding(inner, schedule="work-list", load=2, timing=steady()), steady(), rounds=2)
    assert inner.v_t is not None and all((value > 0.0).any() for value in inner.v_t.values())


@pytest.mark.parametrize(
    ("second_moment", "options", "message"),
    [
        (
            "subtract",
            {"schedule": "work-list"},
            "must be 'scale' or 'second-track' for schedule 'work-list'; got 'subtr",
        ),
        ("scale", {"memory": True}, "memory must be off for a strategy with a second_moment; got it with 'scale'"),
        ("scale", {"secure_sum": True, "decoder": "fixed"}, "secure_sum must be off for a strategy with a second_mom"),
    ],
)
def test_what_the_server_cannot_have_is_refused(second_moment: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coding(VarianceAwareFedAdam(second_moment=second_moment), **options)


def test_a_code_without_an_estimate_is_refused_before_anyone_works() -> None:
    inner = VarianceAwareFedAdam(second_moment="subtract", fraction_evaluate=0.0)
    strategy = coding(inner, code="cyclic-repetition", decoder="least-squares", load=2)
    assert "cyclic-repetition" in CODES
    with pytest.raises(ValueError, match="second_moment 'subtract' needs whole blocks, or settled weights"):
        train(strategy, steady())


def test_bad_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"second_moment must be one of .*; got 'substract', did you mean subtract"):
        VarianceAwareFedYogi(second_moment="substract")
