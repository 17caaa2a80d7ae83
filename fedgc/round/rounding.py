"""How much the clients' rounding adds to their updates, as they tell it from round to round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RoundingEstimate:
    """Running estimate of the variance factor omega of the clients' rounding, ``E|Q(x) - x|^2 = omega |x|^2``.

    Where the coherence of updates is learnt, it is that of the rounded ones, and needs no omega. A coherence that is
    given is of updates as they were before; see :func:`fedgc.round.sizes.shard_gram`.

    Parameters
    ----------
    variance_factor : float
        omega: at first what is usual for the quantiser and the size of the model.
    forgetting : float
        Factor in [0, 1) by which what is known fades with every round.
    observed : bool
        False until clients have told theirs; what is usual is then replaced, not smoothed.

    Notes
    -----
    Of a round the median counts, so that a few clients that tell something else than they measured cannot do much. And
    any omega leaves the decoded update unbiased: a wrong one costs variance.

    Examples
    --------
    >>> RoundingEstimate(0.5).update([0.2, 0.1, 1e9]).variance_factor
    0.2
    """

    variance_factor: float
    forgetting: float = 0.8
    observed: bool = False

    def update(self, told: Sequence[float]) -> RoundingEstimate:
        """Return the estimate after a round in which clients have told these, one for each sum; none change nothing."""
        if not told:
            return self
        past = self.forgetting if self.observed else 0.0
        factor = past * self.variance_factor + (1.0 - past) * float(np.median(told))
        return replace(self, variance_factor=factor, observed=True)


#: Told factors below this part of what is usual are those of sums that are next to nothing.
_LEAST_RATIO = 1e-6


@dataclass(frozen=True)
class RoundingByBits:
    """What is known of the variance factor of clients' rounding to each number of bits, where these differ.

    Parameters
    ----------
    usual : tuple of float
        omega for 0, 1, ... bits that is usual for the quantiser and the size of the model; infinite for no bits.
    ratio : mapping of int to float
        By what that must be multiplied, for the numbers of bits that clients have told of.
    forgetting : float
        Factor in [0, 1) by which what is known fades with every round.

    Notes
    -----
    The ratio says how far a bucket's largest entry is from what it would be among normal numbers. It changes slowly
    with the bits, so that between two numbers of bits that were told of it is interpolated, on a logarithmic scale, and
    beyond them it is that of the nearest.

    Examples
    --------
    >>> known = RoundingByBits((float("inf"), 4.0, 1.0, 0.25)).update({1: [8.0, 8.0, 1e9], 3: [0.125]})
    >>> known.variance_factor.tolist()
    [inf, 8.0, 1.0, 0.125]
    """

    usual: tuple[float, ...]
    ratio: Mapping[int, float] = field(default_factory=dict)
    forgetting: float = 0.8

    @property
    def variance_factor(self) -> NDArray[np.float64]:
        """What omega is for 0, 1, ... bits, as far as known, (n_bits,)."""
        usual = np.array(self.usual)
        told = sorted(self.ratio)
        if not told:
            return usual
        log = np.interp(np.arange(usual.size), told, np.log([self.ratio[bits] for bits in told]))
        factors: NDArray[np.float64] = usual * np.exp(log)
        return factors

    def update(self, told: Mapping[int, Sequence[float]]) -> RoundingByBits:
        """Return what is known after a round in which clients have told these, by their bits."""
        ratio = dict(self.ratio)
        for bits, factors in told.items():
            new = max(float(np.median(factors)) / self.usual[bits], _LEAST_RATIO)
            before = ratio.get(bits)
            ratio[bits] = new if before is None else self.forgetting * before + (1.0 - self.forgetting) * new
        return replace(self, ratio=ratio)
