"""How much noise training bears at its step size: learnt from how fast the decoded update turns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.coherence import CoherenceEstimate

#: Curvature along the step that is assumed at first, in units of one over the step size; it counts as so many rounds.
#: Steps in use are mostly below one over the curvature, to stay clear of two, from which on they diverge.
_FIRST_CURVATURE, _FIRST_ROUNDS = 0.4, 2
#: Bounds of the curvature: below, noise would be thought to cost nothing; from 2 on, gradient descent diverges.
_LEAST_CURVATURE, _MOST_CURVATURE = 0.2, 1.8
_FORGETTING = 0.8


@dataclass(frozen=True, eq=False)
class NoiseSensitivity:
    """Running estimate of what residual error costs: the sensitivity of :func:`fedgc.deadline.time_at_fixed_step`.

    Parameters
    ----------
    signal : float
        Smoothed squared norm of the decoded update without what its residual error adds to it.
    turned : float
        Smoothed difference between the squared norm of a gradient, without noise, and its product with the next one.
    squared : float
        Smoothed squared norm of the decoded updates that `turned` is of, times their steps.
    rounds : int
        Number of pairs of rounds so far.
    last : ndarray or None
        The last decoded update, or a fixed sample of its entries.
    last_error : float
        Its residual error, infinite if that is not known: what comes next is not compared with it then.
    step : float
        By what it was multiplied to be the step, as with shards in a row.

    Notes
    -----
    Let g be the gradient, d an unbiased estimate of it with ``E |d|^2 = (1 + eps) |g|^2``, and eta the step. The next
    gradient is ``g - eta H d`` with the Hessian H, so that for independent estimates d and d' it holds that
    ``E <d', d> = |g|^2 - eta E d'Hd``: how far this falls short of ``|g|^2`` shows the curvature along the step,
    ``x = eta E d'Hd / E |d|^2``. A step lowers the loss by ``eta |g|^2 (1 - x (1 + eps) / 2)``, hence the sensitivity
    is ``x / (2 - x)``: near zero where the direction hardly turns from round to round, 1 at steps of one over the
    curvature, without bound where gradient descent itself is about to diverge. It is assumed that noise meets the same
    curvature as the gradient does.

    Examples
    --------
    >>> slow = NoiseSensitivity()
    >>> for length in (1.0, 0.9, 0.81, 0.73):
    ...     slow = slow.update([length, 0.0], error=0.0)
    >>> turning = NoiseSensitivity()
    >>> for length in (1.0, -0.7, 0.5, -0.35):
    ...     turning = turning.update([length, 0.0], error=0.0)
    >>> round(slow.value, 2), round(turning.value, 2)
    (0.12, 1.45)
    """

    signal: float = 0.0
    turned: float = 0.0
    squared: float = 0.0
    rounds: int = 0
    last: NDArray[np.float64] | None = None
    last_error: float = 0.0
    step: float = 1.0

    def update(self, direction: ArrayLike, error: float, step: float = 1.0) -> NoiseSensitivity:
        """Return the estimate after one more round.

        Parameters
        ----------
        direction : array_like, shape (n_entries,)
            The decoded update, or always the same entries of it.
        error : float
            Its predicted residual error, relative to the update without noise; infinite if that is not known.
        step : float
            By what it is multiplied to be the step. Curvature is along steps: twice as much along one twice as long.
        """
        new = np.asarray(direction, dtype=np.float64)
        squared = float(new @ new)
        if not np.isfinite(squared) or squared == 0.0:
            return self
        if not np.isfinite(error):
            return replace(self, last=new, last_error=np.inf, step=float(step))
        fade = _FORGETTING if self.signal > 0.0 else 0.0
        after = replace(
            self,
            signal=fade * self.signal + (1.0 - fade) * squared / (1.0 + error),
            last=new,
            last_error=float(error),
            step=float(step),
        )
        if self.last is None or self.last.shape != new.shape or not np.isfinite(self.last_error):
            return after
        before = float(self.last @ self.last)
        return replace(
            after,
            turned=_FORGETTING * self.turned + before / (1.0 + self.last_error) - float(new @ self.last),
            squared=_FORGETTING * self.squared + before * self.step,
            rounds=self.rounds + 1,
        )

    @property
    def curvature(self) -> float:
        """Curvature along the step, in units of one over the step size, between bounds that keep a step of use."""
        seen = self.turned / self.squared * self.step if self.squared > 0.0 else _FIRST_CURVATURE
        mixed = (_FIRST_ROUNDS * _FIRST_CURVATURE + self.rounds * seen) / (_FIRST_ROUNDS + self.rounds)
        return float(np.clip(mixed, _LEAST_CURVATURE, _MOST_CURVATURE))

    @property
    def value(self) -> float:
        """Sensitivity to the residual error."""
        return self.curvature / (2.0 - self.curvature)

    def share_of_changes(self, coherence: CoherenceEstimate, sizes: ArrayLike) -> float:
        """Return the squared norm of what changed since it was remembered, relative to that of the whole update.

        With a memory residual errors are relative to the former, and their cost depends on the latter.

        Parameters
        ----------
        coherence : CoherenceEstimate
            Of the changes, in the units of the directions.
        sizes : array_like, shape (n_units,)
            Relative size of each unit.
        """
        if self.signal <= 0.0 or not coherence.observed:
            return 1.0
        part = np.asarray(sizes, dtype=np.float64) / np.sum(sizes)
        overlap = float(np.clip(coherence.overlap, 0.0, 0.999 * coherence.energy))
        return ((coherence.energy - overlap) * float(part @ part) + overlap) / self.signal
