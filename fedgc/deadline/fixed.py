"""The same deadline in every round."""

from __future__ import annotations

from typing import ClassVar

from fedgc.deadline.base import DeadlineRule
from fedgc.deadline.outlook import Outlook
from fedgc.validation import check_positive

#: Seconds that stand for "until everyone has answered".
WAIT_FOR_EVERYONE = 1.0e6


class FixedDeadline(DeadlineRule):
    """A timeout per round.

    Parameters
    ----------
    seconds : float
        The deadline.

    Examples
    --------
    >>> FixedDeadline(30.0).initial
    30.0
    """

    name: ClassVar[str] = "fixed"
    changes: ClassVar[bool] = False

    def __init__(self, seconds: float) -> None:
        self.initial = check_positive("deadline", seconds)

    def choose(self, outlook: Outlook) -> float:
        """Return the same seconds in every round."""
        return self.initial
