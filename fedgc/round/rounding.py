"""How much the clients' rounding adds to their updates, as they tell it from round to round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


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
