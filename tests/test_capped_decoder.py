"""Capped weights: what the cap does to weights, bias and variance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from flwr.serverapp.strategy import FedAvg

from fedgc.codes import FractionalRepetition
from fedgc.coherence import KnownCoherence
from fedgc.decoders import CappedDecoder, FixedDecoder, LeastSquaresDecoder, OptimalUnbiasedDecoder
from fedgc.experiment.config import load_config
from fedgc.experiment.row import MEASURED
from fedgc.experiment.sweep import run_experiment
from fedgc.gram import GramModel
from fedgc.reliability import ReliabilityPosterior
from tests.apps import EXAMPLES, N_SHARDS, steady, train
from tests.enumeration import arrival_sets, exact_moments

CODE = FractionalRepetition([0, 1, 2, 0, 1, 2], [0, 0, 1, 2, 2, 2])
PROB = np.array([0.9, 0.3, 0.99, 0.95, 0.5, 0.98])


@pytest.mark.parametrize("coherence", [0.0, 0.5])
def test_a_cap_that_no_weight_reaches_changes_nothing(coherence: float) -> None:
    gram = GramModel.uniform(6, coherence)
    for inner in (OptimalUnbiasedDecoder(), FixedDecoder(), LeastSquaresDecoder()):
        plain, capped = inner.calibrate(CODE, PROB, gram), CappedDecoder(inner, 1e9).calibrate(CODE, PROB, gram)
        for arrived, _ in arrival_sets(PROB):
            np.testing.assert_allclose(
                capped.decode(arrived).decoding_weights, plain.decode(arrived).decoding_weights, rtol=1e-14
            )
            assert capped.settled(arrived) == plain.settled(arrived)


def test_bias_and_variance_are_those_of_cut_off_probabilities() -> None:
    """Without anything in common a block counts min(1 / p, W) when it comes: by enumeration and in closed form."""
    gram, most = GramModel.uniform(6, 0.0), 5.0
    moments = exact_moments(CappedDecoder(OptimalUnbiasedDecoder(), most).calibrate(CODE, PROB, gram), PROB, gram)
    comes = 1.0 - np.array([0.9 * 0.95, 0.3 * 0.5, 0.99 * 0.98])[CODE.blocks.of_shard]
    weight = np.minimum(1.0 / comes, most)
    np.testing.assert_allclose(moments.coverage, weight * comes, rtol=1e-12)
    assert moments.bias > 0.8
    error = comes * (weight - 1.0) ** 2 + 1.0 - comes
    assert moments.residual_error == pytest.approx(error.mean(), rel=1e-12)
    # Cutting off is what least squares does less of: the error of a round is smaller than without a cap.
    plain = OptimalUnbiasedDecoder().calibrate(CODE, PROB, gram)
    assert moments.residual_error < plain.residual_error


def test_copies_share_the_cut_off_weight() -> None:
    gram = GramModel.uniform(6, 0.0)
    calibrated = CappedDecoder(OptimalUnbiasedDecoder(), 5.0).calibrate(CODE, PROB, gram)
    both = calibrated.decode([False, False, True, False, False, True])
    assert both.decoding_weights[[2, 5]].tolist() == pytest.approx([2.5, 2.5])
    np.testing.assert_allclose(both.coverage[CODE.blocks.of_shard == 2], 5.0)


def test_a_cap_must_be_a_positive_number() -> None:
    for bad in (0.0, -1.0, np.inf, np.nan, "5"):
        with pytest.raises(ValueError, match="most must be a finite number above 0; got"):
            CappedDecoder(FixedDecoder(), bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("decoder", ["optimal-unbiased", "fixed"])
@pytest.mark.parametrize("memory", [False, True])
def test_a_strategy_weighs_no_update_more_than_it_is_told(decoder: str, memory: bool) -> None:
    """Clients that are thought to come once in five rounds all come: each counts five times, or as often as it may."""

    def coverage(max_weight: float | None) -> list[float]:
        strategy = GradientCoding(
            FedAvg(fraction_evaluate=0.0),
            num_shards=N_SHARDS,
            deadline=10.0,
            load=1,
            decoder=decoder,
            max_weight=max_weight,
            memory=memory,
            shard_examples=EXAMPLES,
            reliability=ReliabilityPosterior(prior_arrivals=1e12, prior_misses=4e12),
            coherence=KnownCoherence(energy=1.0, overlap=0.0),
        )
        train(strategy, steady())
        return strategy.history[0].coverage.tolist()

    assert coverage(None) == pytest.approx([5.0] * N_SHARDS)
    assert coverage(2.5) == pytest.approx([2.5] * N_SHARDS)


def test_a_strategys_cap_must_be_a_positive_number() -> None:
    for bad in (0.0, -1.0, np.inf, "5", True):
        with pytest.raises(ValueError, match="max_weight must be a finite number above 0; got"):
            GradientCoding(num_shards=4, deadline=1.0, max_weight=bad)  # type: ignore[arg-type]


def test_an_experiment_passes_the_cap_on() -> None:
    """With next to no weight the model stays where it is, all of the aggregate away from the full one."""
    smallest = Path(__file__).parents[1] / "experiments" / "smallest.toml"
    rows = run_experiment(load_config(smallest, ["rounds=1", "strategies.1.max_weight=1e-9"]))
    assert rows[-1].strategy.startswith("GradientCoding")
    assert rows[-1].metrics[MEASURED] == pytest.approx(1.0, abs=1e-6)
