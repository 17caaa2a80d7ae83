"""Scores of predicted probabilities: closed forms, properness, and the bins of the reliability diagram."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from fedgc.scoring import brier_score, log_score, reliability_diagram

SCORES = [log_score, brier_score, reliability_diagram]


def test_scores_are_the_closed_forms() -> None:
    assert log_score([0.25, 0.5, 1.0], [True, False, True]) == pytest.approx(-np.log(8) / 3, rel=1e-15)
    assert brier_score([0.25, 0.5, 1.0], [True, False, True]) == pytest.approx((0.5625 + 0.25) / 3, rel=1e-15)


def test_certain_predictions_score_best_or_worst() -> None:
    assert log_score([0.0, 1.0], [0, 1]) == 0.0
    assert brier_score([0.0, 1.0], [0, 1]) == 0.0
    assert log_score([0.5, 1.0], [0, 0]) == log_score([0.5, 0.0], [0, 1]) == -np.inf
    assert brier_score([0.0, 1.0], [1, 0]) == 1.0


def test_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.01, 0.99, 300)
    y = rng.random(300) < p
    assert log_score(p, y) == pytest.approx(-log_loss(y, p), rel=1e-12)
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p), rel=1e-12)


@given(truth=st.floats(0.01, 0.99), told=st.floats(0.0, 1.0))
def test_the_truth_scores_best(truth: float, told: float) -> None:
    """Proper scores: in expectation over the outcome nothing beats the true probability."""
    assert log_score([told], [truth]) <= log_score([truth], [truth]) + 1e-12
    assert brier_score([told], [truth]) >= brier_score([truth], [truth]) - 1e-12


def test_the_diagram_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.0, 1.0, 400)
    y = rng.random(400) < p**2
    diagram = reliability_diagram(p, y, n_bins=7)
    observed, predicted = calibration_curve(y, p, n_bins=7)
    np.testing.assert_allclose(diagram.observed_frequency, observed, rtol=1e-12)
    np.testing.assert_allclose(diagram.mean_predicted, predicted, rtol=1e-12)
    assert diagram.count.sum() == 400
    expected = np.average(abs(observed - predicted), weights=diagram.count)
    assert diagram.calibration_error == pytest.approx(expected, rel=1e-12)


def test_edges_belong_to_the_bin_above_and_empty_bins_are_nan() -> None:
    edges = np.linspace(0.0, 1.0, 11)
    diagram = reliability_diagram(edges, np.ones(11))
    assert diagram.count.tolist() == [1] * 9 + [2]
    sparse = reliability_diagram([0.0, 0.05, 1.0], [0, 1, 1])
    assert sparse.count.tolist() == [2] + [0] * 8 + [1]
    for values in (sparse.mean_predicted, sparse.observed_frequency, sparse.standard_error):
        assert np.isnan(values).tolist() == [False] + [True] * 8 + [False]
    assert sparse.calibration_error == pytest.approx(2 / 3 * 0.475)


def test_the_standard_error_is_that_of_right_predictions() -> None:
    p = np.array([0.12, 0.15, 0.18, 0.55])
    diagram = reliability_diagram(p, [0, 0, 0, 1], n_bins=2)
    # All 2^3 outcomes of the first bin, weighted by their probability under the predictions.
    outcomes = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1)
    weight = np.prod(np.where(outcomes == 1, p[:3, None], 1 - p[:3, None]), axis=0)
    frequency = outcomes.mean(axis=0)
    variance = weight @ frequency**2 - (weight @ frequency) ** 2
    assert diagram.standard_error[0] == pytest.approx(np.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([], [], r"probability must have at least one entry; got none"),
        ([0.1, 1.2], [0, 1], r"probability must lie in \[0, 1\]; got 1.2 for prediction 1"),
        ([0.1, np.nan], [0, 1], r"probability must lie in \[0, 1\]; got nan for prediction 1"),
        ([0.1], [2], r"outcome must lie in \[0, 1\]; got 2 for prediction 0"),
        ([0.1], [0, 1], r"outcome must have shape \(1,\); got shape \(2,\)"),
        ([[0.1]], [0], r"probability must have shape \(1,\)"),
    ],
)
def test_bad_input_is_refused(score: Callable[..., Any], p: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(p, y)


@pytest.mark.parametrize("n_bins", [0, -1, 2.5, True])
def test_bins_are_a_whole_number(n_bins: Any) -> None:
    with pytest.raises(ValueError, match=r"n_bins must be an integer of at least 1"):
        reliability_diagram([0.1], [0], n_bins)
