"""The deadline of the least predicted time to target."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from fedgc.deadline.base import DeadlineRule
from fedgc.deadline.outlook import Outlook, RoundForecast
from fedgc.deadline.ranking import cover_time, time_at_fixed_step, time_to_target
from fedgc.validation import check_positive, check_within

#: Deadlines keep so many times away from one by which nothing has come.
_AWAY = 1.5
#: What counts as sooner than the shortest deadline that was tried, and not as a round that lasts until it.
_SOONER = 0.99


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
        short they get is learnt. With a cover training in a row takes 1.3 and 1.5 times as long on the presets `phones`
        and `uneven` (``experiments/regenerate.py wallclock/ablations_in_a_row``).
    noise_sensitivity : float, optional
        See :func:`fedgc.deadline.time_to_target`, and without `cover` :func:`fedgc.deadline.time_at_fixed_step`, by
        which deadlines are then ranked.
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
        if ends[best] < _SOONER * start * scan[0]:
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
