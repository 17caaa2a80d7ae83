"""Wait for a share of the clients: the usual way of dropping slow ones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedgc.deadline.base import DeadlineRule
from fedgc.deadline.outlook import Outlook
from fedgc.validation import check_positive, check_within


class QuantileDeadline(DeadlineRule):
    """The shortest deadline by which a share of the clients is expected to have done its work.

    Parameters
    ----------
    share : float
        Expected share of clients in (0, 1) that make the deadline, of those that can be expected to answer at all
        within `longest`.
    initial : float
        Seconds of the first round, at most `longest`.
    longest : float
        Seconds that no deadline exceeds.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    With reach_i(T) the probability that client i has done its work by T, the deadline is the least T with
    ``sum_i reach_i(T) >= share x sum_i reach_i(longest)``, found by bisection to a thousandth.
    """

    name: ClassVar[str] = "quantile"

    def __init__(self, share: float, *, initial: float, longest: float = 3600.0) -> None:
        if not isinstance(share, (int, float)) or not 0.0 < share < 1.0:
            raise ValueError(f"share must lie in (0, 1); got {share!r}")
        self.share = float(share)
        self.initial = check_positive("initial", initial)
        self.longest = check_positive("longest", longest)
        check_within("initial", self.initial, longest=self.longest)

    def choose(self, outlook: Outlook) -> float:
        """Return the quantile of the expected completion times."""

        def done(deadline: float) -> float:
            return float((1.0 - outlook.timing.straggle_prob(deadline, outlook.work)).sum())

        wanted = self.share * done(self.longest)
        low, high = self.longest * 1e-6, self.longest
        while high > low * 1.001:
            middle = float(np.sqrt(low * high))
            low, high = (low, middle) if done(middle) >= wanted else (middle, high)
        return high
