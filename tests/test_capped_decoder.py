"""Capped weights: what the cap does to weights, bias and variance."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.codes import FractionalRepetition
from fedgc.decoders import CappedDecoder, FixedDecoder, LeastSquaresDecoder, OptimalUnbiasedDecoder
from fedgc.gram import GramModel
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
