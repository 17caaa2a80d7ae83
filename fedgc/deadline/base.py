"""What a deadline rule is: it chooses how long a round may last from what is known of the clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from fedgc.deadline.outlook import Outlook, RoundForecast
from fedgc.deadline.ranking import time_to_target


class DeadlineRule(ABC):
    """A rule for the seconds from sending a round's messages to decoding what has come.

    To add a rule, subclass this in a file of its own and add it to ``DEADLINES`` in ``fedgc/deadline/build.py``.
    """

    name: ClassVar[str]

    #: Whether deadlines may differ from round to round, so that times have to tell what outcomes at one do not.
    changes: ClassVar[bool] = True

    #: Seconds of the first rounds, in which nothing is known of the clients; within the bounds of the rule, if any.
    initial: float

    @property
    def learns_noise(self) -> bool:
        """Whether the rule heeds what a run learns of the cost of residual errors (:mod:`fedgc.noise`)."""
        return False

    def time(self, forecast: RoundForecast, learnt: float) -> float:
        """Return what lists are chosen by beside the deadline: by default :func:`fedgc.deadline.time_to_target`.

        `learnt` is the noise sensitivity that has been learnt.
        """
        return time_to_target(forecast)

    @abstractmethod
    def choose(self, outlook: Outlook) -> float:
        """Return the deadline in seconds."""
