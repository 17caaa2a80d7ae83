"""The optimal decoder against oracles that share no code with it."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from fedgc.analysis import analyse, orthogonal_lower_bound
from fedgc.codes import (
    Chain,
    CommonShard,
    CyclicRepetition,
    FractionalRepetition,
    MatrixCode,
    RandomRegularGraphCode,
    StochasticGradientCode,
)
from fedgc.decoders import DECODERS, FixedDecoder, OptimalUnbiasedDecoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
from tests.enumeration import arrival_sets, exact_moments


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_projection_formula_by_enumeration(seed: int) -> None:
    """v = Q_A t with t = E[Q_A]^-1 1 and Q_A = A'(A G A')^+ A G, straight from the definition."""
    rng = np.random.default_rng(seed)
    code = FractionalRepetition([0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3])
    p = rng.uniform(0.05, 0.95, 7)
    gram = GramModel(rng.uniform(0.1, 2, 4), rng.uniform(0, 2, 4))
    G, A = gram.matrix, code.encoding_matrix

    def projection(arrived: np.ndarray) -> np.ndarray:
        rows = A[arrived]
        return rows.T @ np.linalg.pinv(rows @ G @ rows.T) @ rows @ G

    mean = sum(probability * projection(arrived) for arrived, probability in arrival_sets(p))
    t = np.linalg.solve(mean, np.ones(4))
    calibrated = OptimalUnbiasedDecoder().calibrate(code, p, gram)
    for arrived, _ in arrival_sets(p):
        np.testing.assert_allclose(calibrated.decode(arrived).coverage, projection(arrived) @ t, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_no_unbiased_rule_has_a_smaller_residual_error(seed: int) -> None:
    """A convex program over the weights of all arrival sets at once finds the same least value."""
    rng = np.random.default_rng([7, seed])
    code = FractionalRepetition([0, 1, 2, 0], [0, 1, 2])
    p = rng.uniform(0.1, 0.8, 4)
    gram = GramModel(rng.uniform(0.2, 2, 3), rng.uniform(0, 1.5, 3))
    root = np.linalg.cholesky(gram.matrix)
    A = code.encoding_matrix
    cost, mean = 0.0, 0.0
    for arrived, probability in arrival_sets(p):
        v = A[arrived].T @ cp.Variable(int(arrived.sum())) if arrived.any() else np.zeros(3)
        cost = cost + probability * cp.sum_squares(root.T @ (v - np.ones(3)))
        mean = mean + probability * v
    least = cp.Problem(cp.Minimize(cost), [mean == 1]).solve(solver=cp.CLARABEL)
    relative = least / gram.inner(np.ones(3), np.ones(3))
    # The interior-point solver stops at a relative gap of about 1e-8.
    assert OptimalUnbiasedDecoder().calibrate(code, p, gram).residual_error == pytest.approx(relative, rel=1e-6)


def test_without_coherence_it_is_inverse_probability_weighting() -> None:
    code = FractionalRepetition([0, 1, 1], [0, 1])
    p = np.array([0.3, 0.5, 0.2])
    calibrated = OptimalUnbiasedDecoder().calibrate(code, p, GramModel([1.0, 2.0], [0.0, 0.0]))
    np.testing.assert_allclose(calibrated.decode(np.array([True, True, True])).coverage, [1 / 0.7, 1 / 0.9], atol=1e-13)


def test_with_full_coherence_it_divides_by_who_came() -> None:
    """d -> 0: whatever came is scaled up to the whole, up to the rounds in which nothing comes."""
    n, p = 5, 0.3
    code = FractionalRepetition(np.arange(n), np.arange(n))
    calibrated = OptimalUnbiasedDecoder().calibrate(code, np.full(n, p), GramModel(np.full(n, 1e-9), np.ones(n)))
    for count in range(1, n + 1):
        coverage = calibrated.decode(np.arange(n) < count).coverage
        np.testing.assert_allclose(coverage[:count], n / count / (1 - p**n), rtol=1e-6)


@pytest.mark.parametrize("coherence", [0.0, 0.5, 0.9])
def test_never_worse_than_the_fixed_weights(coherence: float) -> None:
    rng = np.random.default_rng(3)
    code = FractionalRepetition(np.arange(8) % 4, np.arange(4))
    p, gram = rng.uniform(0, 0.9, 8), GramModel.uniform(4, coherence)
    optimal = OptimalUnbiasedDecoder().calibrate(code, p, gram).residual_error
    assert optimal <= FixedDecoder().calibrate(code, p, gram).residual_error + 1e-14


def test_a_wrong_gram_model_costs_variance_but_no_bias() -> None:
    code = FractionalRepetition([0, 1, 2, 0, 1, 2], [0, 1, 2])
    p = np.array([0.2, 0.7, 0.5, 0.4, 0.6, 0.1])
    truth, wrong = GramModel([1.0, 1.0, 1.0], [0.1, 0.1, 0.1]), GramModel([1.0, 0.01, 5.0], [2.0, 3.0, 0.0])
    right = exact_moments(OptimalUnbiasedDecoder().calibrate(code, p, truth), p, truth)
    mistaken = exact_moments(OptimalUnbiasedDecoder().calibrate(code, p, wrong), p, truth)
    assert mistaken.bias < 1e-12
    assert mistaken.residual_error > right.residual_error


@pytest.mark.parametrize("seed", range(2))
def test_fixed_weights_are_the_best_fixed_ones(seed: int) -> None:
    """The closed form against a quadratic program over one weight per client and any Gram matrix."""
    rng = np.random.default_rng([5, seed])
    code = FractionalRepetition([0, 1, 0, 1, 1], [0, 1])
    p = rng.uniform(0.1, 0.9, 5)
    gram = GramModel(rng.uniform(0.1, 2, 2), rng.uniform(0, 2, 2))
    A, G = code.encoding_matrix, gram.matrix
    a = cp.Variable(5)
    odds = p / (1 - p)
    cost = sum(odds[i] * cp.square(a[i]) * float(A[i] @ G @ A[i]) for i in range(5))
    least = cp.Problem(cp.Minimize(cost), [A.T @ a == 1]).solve(solver=cp.CLARABEL)
    relative = least / gram.inner(np.ones(2), np.ones(2))
    assert FixedDecoder().calibrate(code, p, gram).residual_error == pytest.approx(relative, rel=1e-6)


def test_large_codes_calibrate_without_enumeration() -> None:
    """Ten thousand blocks; Monte Carlo mean within five standard errors in every one of a few blocks."""
    rng = np.random.default_rng(1)
    n = 10_000
    code = FractionalRepetition(np.arange(n), np.arange(n))
    p = rng.uniform(0.05, 0.95, n)
    calibrated = OptimalUnbiasedDecoder().calibrate(code, p, GramModel.uniform(n, 0.5))
    draws = np.array([calibrated.decode(rng.random(n) >= p).coverage.mean() for _ in range(20)])
    # The mean over all blocks has a standard error of its own from 20 draws; z = 5 leaves 1e-4 at 19 degrees.
    assert abs(draws.mean() - 1) < 5 * draws.std(ddof=1) / np.sqrt(20)


@pytest.mark.parametrize("seed", range(3))
def test_codes_without_blocks_are_decoded_without_bias(seed: int) -> None:
    rng = np.random.default_rng([9, seed])
    p = rng.uniform(0.05, 0.9, 6)
    gram = GramModel(rng.uniform(0.2, 2, 6), rng.uniform(0, 1.5, 6))
    for code in (
        CommonShard(p, 6),
        Chain(p),
        CyclicRepetition(6, 2, rng=rng),
        StochasticGradientCode(6, 6, 2, rng=rng),
        RandomRegularGraphCode(6, 3, rng=rng),
    ):
        calibrated = OptimalUnbiasedDecoder().calibrate(code, p, gram)
        moments = exact_moments(calibrated, p, gram)
        assert moments.bias < 1e-9, type(code).__name__
        assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-9)
        if not isinstance(code, CyclicRepetition):  # whose columns have entries of either sign
            weighted = DECODERS["inverse-probability"]().calibrate(code, p, gram)
            assert calibrated.residual_error <= weighted.residual_error + 1e-12


def test_whole_blocks_and_listed_states_agree() -> None:
    """The scalar arithmetic for whole blocks against the general one, which finds the blocks by itself."""
    rng = np.random.default_rng(4)
    code = FractionalRepetition([0, 1, 2, 0, 1, 2, 0], [0, 0, 1, 2, 2])
    p, gram = rng.uniform(0.1, 0.9, 7), GramModel(rng.uniform(0.2, 2, 5), rng.uniform(0, 2, 5))
    whole = OptimalUnbiasedDecoder().calibrate(code, p, gram)
    listed = OptimalUnbiasedDecoder().calibrate(MatrixCode(code.sparse_matrix), p, gram)
    assert listed.residual_error == pytest.approx(whole.residual_error, rel=1e-12)
    for arrived, _ in arrival_sets(p):
        weights = whole.decode(arrived).decoding_weights
        np.testing.assert_allclose(listed.decode(arrived).decoding_weights, weights, atol=1e-12)


def test_many_clients_report_what_drawing_leaves() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.1, 0.6, 24)
    code, gram = Chain(p), GramModel.uniform(24, 0.3)
    calibrated = OptimalUnbiasedDecoder(draws=3000, seed=1).calibrate(code, p, gram)
    assert 0 < calibrated.bias_standard_error < 0.1
    assert calibrated.bias is None
    assert analyse(calibrated, p, gram, rng=rng, draws=100).standard_error > 0
    fresh = np.array([calibrated.decode(rng.random(24) >= p).coverage for _ in range(3000)])
    # Bias of the calibration and noise of the check are of equal size and independent; z = 5 over 24 shards.
    assert np.abs(fresh.mean(axis=0) - 1).max() < 5 * np.sqrt(2) * calibrated.bias_standard_error
    assert (
        OptimalUnbiasedDecoder(draws=3000, seed=1).calibrate(code, p, gram).residual_error == calibrated.residual_error
    )


def test_a_shard_that_nobody_holds_has_no_unbiased_decoder() -> None:
    code = MatrixCode([[1.0, 0.0], [1.0, 0.0]], allow_unheld=True)
    with pytest.raises(NoUnbiasedDecoderError, match="got none for shard 1"):
        OptimalUnbiasedDecoder().calibrate(code, [0.5, 0.5], GramModel.uniform(2, 0.0))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("n_clients", [5, 14])
def test_analysis_agrees_with_enumeration(decoder: str, n_clients: int) -> None:
    rng = np.random.default_rng([6, n_clients])
    p = rng.uniform(0.1, 0.8, n_clients)
    code = FractionalRepetition(np.arange(n_clients) % 3, [0, 0, 1, 2, 2])
    gram = GramModel.uniform(5, 0.4)
    calibrated = DECODERS[decoder]().calibrate(code, p, gram)
    analysis = analyse(calibrated, p, gram, rng=rng, draws=3000)
    if n_clients == 5:
        moments = exact_moments(calibrated, p, gram)
        assert analysis.standard_error == 0
        assert analysis.residual_error == pytest.approx(moments.residual_error, rel=1e-10)
        np.testing.assert_allclose(analysis.bias, moments.coverage - 1, atol=1e-12)
    else:
        fresh = np.array([gram.residual_error(calibrated.decode(rng.random(14) >= p).coverage) for _ in range(3000)])
        error = np.hypot(analysis.standard_error, fresh.std() / np.sqrt(3000))
        assert abs(fresh.mean() - analysis.residual_error) < 5 * error  # z = 5


def test_fractional_repetition_attains_the_lower_bound() -> None:
    rng = np.random.default_rng(7)
    p, energy = rng.uniform(0.1, 0.9, 8), rng.uniform(0.5, 2, 4)
    code = FractionalRepetition(np.arange(8) % 4, np.arange(4))
    calibrated = OptimalUnbiasedDecoder().calibrate(code, p, GramModel(energy, np.zeros(4)))
    assert calibrated.residual_error == pytest.approx(orthogonal_lower_bound(code, p, energy), rel=1e-12)
    other = StochasticGradientCode(8, 8, 2, rng=rng)
    best = OptimalUnbiasedDecoder().calibrate(other, p, GramModel.uniform(8, 0.0))
    assert best.residual_error >= orthogonal_lower_bound(other, p, np.ones(8)) - 1e-12
