"""How long clients take per unit of work, and what is known of the n-th fastest of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import betaincinv, betaln

from fedgc.validation import check_integer, check_positive

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ShiftedExponentialTimes:
    """Independent seconds per unit of work, ``shift + mean x E`` with E standard exponential.

    The work per unit is that of :class:`fedgc.fleets.ShiftedExponentialFleet` with the same shift and mean; the
    literature writes ``t0`` for the shift and ``1 / mu`` for the mean.

    Attributes
    ----------
    shift : float
        Least seconds per unit, at least 0.
    mean : float
        Mean seconds of the random part.

    Raises
    ------
    ValueError
        If the shift is negative or not finite, or the mean is not above zero.

    Examples
    --------
    >>> times = ShiftedExponentialTimes(shift=50.0, mean=1000.0)
    >>> times.order_means(3).round(1).tolist()
    [383.3, 883.3, 1883.3]
    >>> (1.0 / times.order_inverse_means(3)).round(1).tolist()
    [195.9, 532.2, 1250.3]
    """

    shift: float
    mean: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.shift < np.inf:
            raise ValueError(f"shift must be a finite number of at least 0; got {self.shift!r}")
        check_positive("mean", self.mean)

    def draw(self, n_clients: int, n_draws: int, rng: np.random.Generator) -> Vector:
        """Return seconds per unit of work, one row per draw, (n_draws, n_clients)."""
        check_integer("n_clients", n_clients, low=1)
        check_integer("n_draws", n_draws, low=1)
        return self.shift + self.mean * rng.standard_exponential((n_draws, n_clients))

    def order_means(self, n_clients: int) -> Vector:
        """Return ``E[T_(n)] = shift + mean (H_N - H_(N-n))`` of the n-th fastest of N clients, (n_clients,)."""
        left = np.arange(check_integer("n_clients", n_clients, low=1), 0, -1)
        return self.shift + self.mean * np.cumsum(1.0 / left)

    def order_inverse_means(self, n_clients: int) -> Vector:
        """Return ``E[1 / T_(n)]`` of the n-th fastest of N clients, (n_clients,), to about ten digits.

        Raises
        ------
        ValueError
            If the shift is zero: that of the fastest client is then infinite.

        Notes
        -----
        The n-th smallest of N standard exponentials has a density proportional to ``(1 - e^-y)^(n-1) e^(-(N+1-n) y)``.
        The closed form, a sum of exponential integrals with alternating signs, loses all digits at N = 50, and so this
        is a quadrature.
        """
        n = check_integer("n_clients", n_clients, low=1)
        if self.shift == 0.0:
            raise ValueError("shift must be above 0 for the mean of 1 / T, which is infinite otherwise; got 0")

        def inverse(y: float, place: int) -> float:
            log_density = (place - 1) * np.log(-np.expm1(-y)) - (n + 1 - place) * y
            return float(np.exp(log_density - betaln(place, n + 1 - place))) / (self.shift + self.mean * y)

        means = []
        for place in range(1, n + 1):
            # Where nearly all of it lies, and the rest: one interval alone may miss a narrow peak.
            peak = -np.log1p(-betaincinv(place, n + 1 - place, [1e-9, 1e-3, 0.5, 0.999, 1.0 - 1e-9]))
            edges = [0.0, *peak, np.inf]
            parts = [
                quad(inverse, low, high, args=(place,), epsabs=0.0, epsrel=1e-11, limit=200)[0]
                for low, high in pairwise(edges)
            ]
            means.append(sum(parts))
        return np.array(means)
