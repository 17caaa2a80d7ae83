"""How fast training converges for a given residual error: upper bounds, round by round."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.validation import check_integer, check_positive

Vector = NDArray[np.float64]


def strongly_convex_bound(
    rounds: int, *, residual_error: float, gradient_bound: float, strong_convexity: float
) -> Vector:
    """Bound the squared distance to the optimum of a strongly convex loss, with step ``1 / (lambda t)`` in round t.

    Parameters
    ----------
    rounds : int
        Number of rounds T, at least 1.
    residual_error : float
        ``E|g^ - g|^2 / |g|^2`` of an unbiased decoder, at least 0.
    gradient_bound : float
        B with ``|g| <= B`` wherever training goes.
    strong_convexity : float
        lambda.

    Returns
    -------
    ndarray, shape (rounds,)
        ``4 (1 + residual_error) B^2 / (lambda^2 t)``, at least ``E|theta - theta*|^2`` before the step of round t, for
        t = 1 .. T.

    Notes
    -----
    Unbiasedness gives ``E|g^|^2 = (1 + residual_error) |g|^2``, and the rest is the argument of A. Rakhlin, O. Shamir,
    K. Sridharan, "Making gradient descent optimal for strongly convex stochastic optimization", ICML 2012, Lemma 1.

    Examples
    --------
    >>> strongly_convex_bound(3, residual_error=0.5, gradient_bound=1.0, strong_convexity=1.0).tolist()
    [6.0, 3.0, 2.0]
    """
    t = _rounds(rounds)
    energy = (1.0 + _residual_error(residual_error)) * check_positive("gradient_bound", gradient_bound) ** 2
    return 4.0 * energy / (check_positive("strong_convexity", strong_convexity) ** 2 * t)


def smooth_strongly_convex_bound(
    rounds: int, *, residual_error: float, gradient_bound: float, strong_convexity: float, smoothness: float
) -> Vector:
    """Bound the excess loss where the loss is mu-smooth as well: ``2 mu (1 + residual_error) B^2 / (lambda^2 t)``.

    The other parameters are those of :func:`strongly_convex_bound`, and so is the step. Smoothness turns the distance
    into loss: ``f(theta) - f* <= (mu / 2) |theta - theta*|^2``.

    Raises
    ------
    ValueError
        If `smoothness` is below `strong_convexity`, which no function has.

    Examples
    --------
    >>> options = {"residual_error": 0.5, "gradient_bound": 1.0, "strong_convexity": 1.0}
    >>> smooth_strongly_convex_bound(2, smoothness=4.0, **options).tolist()
    [12.0, 6.0]
    """
    distance = strongly_convex_bound(
        rounds, residual_error=residual_error, gradient_bound=gradient_bound, strong_convexity=strong_convexity
    )
    if check_positive("smoothness", smoothness) < strong_convexity:
        raise ValueError(f"smoothness must be at least strong_convexity = {strong_convexity}; got {smoothness}")
    return smoothness / 2.0 * distance


def smooth_bound(
    rounds: int, *, residual_error: float, gradient_bound: float, smoothness: float, step: float, excess_loss: float
) -> Vector:
    """Bound the mean squared gradient norm of a smooth loss, convex or not, with a constant step.

    Parameters
    ----------
    rounds, residual_error, gradient_bound : int, float, float
        As for :func:`strongly_convex_bound`.
    smoothness : float
        mu, the Lipschitz constant of the gradient.
    step : float
        Step size, at most ``1 / mu``.
    excess_loss : float
        ``f(theta_1) - min f``.

    Returns
    -------
    ndarray, shape (rounds,)
        ``2 excess_loss / (step t) + mu step residual_error B^2``, at least the mean of ``E|grad f|^2``
        over rounds 1 to t.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Smoothness gives ``E f(theta_{t+1}) <= E f(theta_t) - (step / 2) E|g|^2 + (mu step^2 / 2) residual_error B^2`` for
    steps up to 1 / mu; the sum over rounds telescopes. The second term is the noise floor that a smaller residual error
    lowers.

    Examples
    --------
    >>> options = {"gradient_bound": 1.0, "smoothness": 1.0, "step": 0.5, "excess_loss": 1.0}
    >>> smooth_bound(2, residual_error=0.5, **options).tolist()
    [4.25, 2.25]
    """
    t = _rounds(rounds)
    mu = check_positive("smoothness", smoothness)
    if check_positive("step", step) > 1.0 / mu:
        raise ValueError(f"step must be at most 1 / smoothness = {1.0 / mu:g}; got {step}")
    floor = mu * step * _residual_error(residual_error) * check_positive("gradient_bound", gradient_bound) ** 2
    return 2.0 * check_positive("excess_loss", excess_loss) / (step * t) + floor


def _rounds(rounds: int) -> Vector:
    return np.arange(1.0, check_integer("rounds", rounds, low=1) + 1.0)


def _residual_error(value: float) -> float:
    if not 0.0 <= value < np.inf:
        raise ValueError(f"residual_error must be a finite number of at least 0; got {value}")
    return float(value)
