"""What deadlines are ranked by: predicted time to target, and the time in which a fleet can do every shard once."""

from __future__ import annotations

import numpy as np

from fedgc.deadline.outlook import RoundForecast, Timing

#: Residual error beyond which no deadline is of use to a step that stays as it is.
_MOST_ERROR = 2.0
#: The part of the way to its own optimum that a client is taken to go, at most: what is beyond is the server's step.
_MOST_OF_THE_WAY = 0.9


def time_to_target(forecast: RoundForecast, noise_sensitivity: float = 1.0) -> float:
    """Return the predicted time to reach a training target, in seconds per noise-free round.

    Parameters
    ----------
    forecast : RoundForecast
        What a plan predicts for its rounds.
    noise_sensitivity : float
        How many more rounds the target takes per unit of residual error, at least 0.

    Notes
    -----
    ``round_time x (1 + noise_sensitivity x residual_error) / step``. One step along an unbiased estimate whose squared
    error is eps times the squared gradient gains 1 / (1 + eps) of what the exact gradient gains, with the best step
    size for each: the sensitivity is then 1. It is lower where the step size is held down by something else than the
    noise. With shards in a row a round of twice as many steps is taken to be worth two; what that overrates is in
    :func:`time_at_fixed_step`.

    References
    ----------
    S. McCandlish, J. Kaplan, D. Amodei, "An Empirical Model of Large-Batch Training", arXiv 1812.06162, section 2.2:
    steps to target grow as one plus the noise-to-signal ratio of the gradient.

    Examples
    --------
    >>> time_to_target(RoundForecast(round_time=10.0, arrivals=5.0, residual_error=0.2))
    12.0
    """
    if np.isinf(forecast.residual_error):
        return np.inf  # not zero times infinity where the sensitivity is 0
    if forecast.step <= 0.0:
        return np.inf
    return forecast.round_time * (1.0 + noise_sensitivity * forecast.residual_error) / forecast.step


def time_at_fixed_step(forecast: RoundForecast, noise_sensitivity: float = 1.0) -> float:
    """Return the predicted time to reach a training target with a step size that stays as it is, in seconds.

    Parameters
    ----------
    forecast : RoundForecast
        What a plan predicts for its rounds.
    noise_sensitivity : float
        ``rho / (2 - rho)`` for steps of rho / L on a loss of smoothness L, at least 0.

    Notes
    -----
    ``round_time / (e (1 - s eps e - s (e - 1)))`` with the noise sensitivity s, the residual error eps and how far a
    round's step goes, e, relative to the steps of which the sensitivity is known: 1, and the denominator ``1 - s eps``,
    but with shards in a row. Infinite where the denominator is not positive or the residual error exceeds two: what is
    decoded would be mostly noise, and no forecast of it is to be relied on. A step eta along an unbiased estimate of
    squared error eps times the squared gradient g lowers a loss of smoothness L by
    ``eta |g|^2 (1 - eta L (1 + eps) / 2)`` at least; this is relative to eps = 0 and e = 1, with ``s = x / (2 - x)``
    for x = eta L, and e x in the place of x. To first order in eps it is :func:`time_to_target`, in which the step is
    the best one for each error. A step that was chosen for exact gradients gains nothing from errors beyond some size,
    so that rounds cannot be made ever shorter.

    With shards in a row a client that does r times as many steps does not go r times as far: on a loss of curvature x
    along its steps it is left with ``(1 - x)^r`` of the way to its own optimum, whence ``e = (1 - (1 - x)^r) / x``,
    which is r for a small x and never more than 1 / x. Without noise ``e (1 - s (e - 1))`` then is to 1 what the loss
    falls by in r such steps, ``1 - (1 - x)^(2 r)``, is to ``1 - (1 - x)^2``.

    References
    ----------
    L. Bottou, F. E. Curtis, J. Nocedal, "Optimization Methods for Large-Scale Machine Learning", SIAM Review 60 (2018),
    lemma 4.4.

    Examples
    --------
    >>> time_at_fixed_step(RoundForecast(round_time=10.0, arrivals=5.0, residual_error=0.2))
    12.5
    >>> time_at_fixed_step(RoundForecast(round_time=0.1, arrivals=0.5, residual_error=20.0))
    inf
    """
    sensitivity = noise_sensitivity
    step = way_in_a_row(forecast.step, sensitivity)
    gain = step * (1.0 - sensitivity * forecast.residual_error * step - sensitivity * (step - 1.0))
    return forecast.round_time / gain if gain > 0.0 and forecast.residual_error <= _MOST_ERROR else np.inf


def way_in_a_row(steps: float, noise_sensitivity: float) -> float:
    """Return how far steps in a row go, relative to those of which the noise sensitivity is known.

    Parameters
    ----------
    steps : float
        How many there are, relative to the latter.
    noise_sensitivity : float
        ``x / (2 - x)`` for the curvature x along the latter.

    Notes
    -----
    ``(1 - (1 - x)^steps) / x``, with x at most 0.9; see :func:`time_at_fixed_step`.

    Examples
    --------
    >>> [round(way_in_a_row(steps, 0.25), 3) for steps in (0.5, 1.0, 2.0, 100.0)]
    [0.564, 1.0, 1.6, 2.5]
    """
    curvature = min(2.0 * noise_sensitivity / (1.0 + noise_sensitivity), _MOST_OF_THE_WAY)
    if steps == 1.0 or curvature == 0.0:
        return steps
    left = float((1.0 - curvature) ** steps)
    return (1.0 - left) / curvature


def cover_time(
    timing: Timing, n_shards: int, shortest: float = 1e-3, longest: float = 3600.0, *, part: float | None = None
) -> float:
    """Return the least deadline by which all clients together are expected to do every shard once, to 1 %.

    Parameters
    ----------
    timing : Timing
        What is known of the clients.
    n_shards : int
        Number of shards.
    shortest, longest : float
        Seconds between which it is sought.
    part : float, optional
        If the fleet cannot do that much, return the least deadline for this part of what it can, between 0 and 1.

    Returns
    -------
    float
        Seconds; if the fleet cannot do that much however long one waits and no `part` is given, `shortest`.

    Notes
    -----
    Each client counts with what it would do if it had work enough, up to eight times its equal part: with that much on
    their lists the deadline rarely depends on how the shards are assigned.
    """
    n_clients = timing.reach(longest, 1).shape[0]
    most = min(n_shards, 8 * -(-n_shards // n_clients))

    def expected(deadline: float) -> float:
        return float(timing.reach(deadline, most)[:, 1:].sum())

    wanted, able = float(n_shards), expected(longest)
    if able < wanted:
        if part is None:
            return shortest
        wanted = part * able
    low, high = shortest, longest
    while high > low * 1.01:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if expected(middle) >= wanted else (middle, high)
    return high
