"""The optimal decoder against oracles that share no code with it."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from fedgc.codes import FractionalRepetition
from fedgc.decoders import FixedDecoder, OptimalUnbiasedDecoder
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
