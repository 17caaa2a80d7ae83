"""The deadline of the least predicted time to target."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from fedgc.deadline.base import DeadlineRule, Outlook, RoundForecast, Timing
from fedgc.validation import check_positive, check_within

#: Residual error beyond which no deadline is of use to a step that stays as it is.
_MOST_ERROR = 2.0

#: Deadlines keep so many times away from one by which nothing has come.
_AWAY = 1.5


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
    ``round_time x (1 + noise_sensitivity x residual_error)``. One step along an unbiased estimate whose squared error
    is eps times the squared gradient gains 1 / (1 + eps) of what the exact gradient gains, with the best step size for
    each: the sensitivity is then 1. It is lower where the step size is held down by something else than the noise.

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
    return forecast.round_time * (1.0 + noise_sensitivity * forecast.residual_error)


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
    ``round_time / (1 - noise_sensitivity x residual_error)``, infinite where the denominator is not positive or the
    residual error exceeds two: what is decoded would be mostly noise, and no forecast of it is to be relied
    on. A step
    eta along an unbiased estimate of squared error eps times the squared gradient g lowers a loss of smoothness L by
    ``eta |g|^2 (1 - eta L (1 + eps) / 2)`` at least; this is relative to eps = 0. To first order it is
    :func:`time_to_target`, in which the step is the best one for each error. A step that was chosen for exact gradients
    gains nothing from errors beyond some size, so that rounds cannot be made ever shorter.

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
    gain = 1.0 - noise_sensitivity * forecast.residual_error
    return forecast.round_time / gain if gain > 0.0 and forecast.residual_error <= _MOST_ERROR else np.inf


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


class AutomaticDeadline(DeadlineRule):
    """Minimise the predicted time to target over a grid of deadlines.

    Parameters
    ----------
    initial : float
        Seconds of the first round, from which the grid also starts, from `shortest` to `longest`.
    shortest, longest : float
        Seconds that no deadline falls below or exceeds.
    cover : bool
        Never choose a deadline by which all clients together, each working on as long as it is given shards, are
        expected to do less than every shard once. By default it may: rounds are then noisier but shorter, and how
        short they get is learnt. With a cover the default takes 1.9 and 2.4 times as long on the presets `phones` and
        `uneven` (``experiments/regenerate.py wallclock/ablations``).
    noise_sensitivity : float, optional
        See :func:`time_to_target`, and without `cover` :func:`time_at_fixed_step`, by which deadlines are then ranked.
        By default learnt from how fast the decoded updates turn, and 1 with `cover`
        (:class:`fedgc.noise.NoiseSensitivity`).

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Deadlines are tried in steps of 25 % between a third of and three times the last one. If the rounds of the best one
    end sooner than all of these, likewise around their end: where rounds end early, all deadlines far beyond are alike
    and none of them leads to a shorter one. Then in steps of 8 % around the best: at most 26 forecasts. The last
    deadline is kept unless another one is predicted to save more than 2 %.
    """

    name: ClassVar[str] = "auto"

    def __init__(
        self,
        *,
        initial: float,
        shortest: float = 1e-3,
        longest: float = 3600.0,
        cover: bool = False,
        noise_sensitivity: float | None = None,
    ) -> None:
        self.initial = check_positive("initial", initial)
        self.shortest = check_positive("shortest", shortest)
        self.longest = check_positive("longest", longest)
        if self.shortest > self.longest:
            raise ValueError(f"shortest must be at most longest = {longest}; got {shortest}")
        check_within("initial", self.initial, shortest=self.shortest, longest=self.longest)
        if not isinstance(cover, (bool, np.bool_)):
            raise ValueError(f"cover must be True or False; got {cover!r}")
        if noise_sensitivity is not None and (
            not isinstance(noise_sensitivity, (int, float)) or not 0.0 <= noise_sensitivity < np.inf
        ):
            raise ValueError(f"noise_sensitivity must be a finite number of at least 0; got {noise_sensitivity!r}")
        self.cover = bool(cover)
        self.noise_sensitivity = None if noise_sensitivity is None else float(noise_sensitivity)

    @property
    def learns_noise(self) -> bool:
        """Whether the sensitivity to noise is to be learnt."""
        return not self.cover and self.noise_sensitivity is None

    def time(self, forecast: RoundForecast, learnt: float) -> float:
        """Return the time to target that is minimised, given the noise sensitivity that has been learnt."""
        if self.cover:
            return time_to_target(forecast, 1.0 if self.noise_sensitivity is None else self.noise_sensitivity)
        return time_at_fixed_step(forecast, learnt if self.noise_sensitivity is None else self.noise_sensitivity)

    def choose(self, outlook: Outlook) -> float:
        """Return the deadline of the least predicted time to target."""
        start = outlook.last if outlook.last is not None else self.initial
        floor = (
            max(self.shortest, cover_time(outlook.timing, outlook.n_shards, self.shortest, self.longest))
            if self.cover
            else max(self.shortest, _AWAY * outlook.fruitless)
        )
        tried: dict[float, tuple[float, float]] = {}
        ends: dict[float, float] = {}

        def least(deadlines: Iterable[float]) -> float:
            for deadline in deadlines:
                within = min(max(deadline, min(floor, self.longest)), self.longest)
                if within not in tried:
                    forecast = outlook.forecast(within)
                    # Where every deadline is too short for anything, the one of the least error leads on.
                    tried[within] = self.time(forecast, outlook.noise_sensitivity), forecast.residual_error
                    ends[within] = forecast.round_time
            return min(tried, key=lambda deadline: tried[deadline])

        scan = [1.25**step for step in range(-5, 6)]
        best = least(start * factor for factor in scan)
        if ends[best] < start * scan[0]:
            best = least(ends[best] * factor for factor in scan)
        best = least([best * 1.08**step for step in (-2, -1, 1, 2)])
        # Of deadlines by which nothing can be decoded none saves anything.
        if start in tried and (np.isinf(tried[best][1]) or _is_no_gain(tried[best], tried[start])):
            return start
        return best


def _is_no_gain(best: tuple[float, float], now: tuple[float, float]) -> bool:
    """Return whether a deadline, by its time to target and residual error, saves 2 % at most, of time if it can."""
    if np.isfinite(now[0]):
        return best[0] > 0.98 * now[0]
    return bool(np.isinf(best[0]) and best[1] > 0.98 * now[1])
