"""What an estimate of the second moment is: told of each coded update of a round, then asked for the square."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from fedgc.arrivals import ArrivalModel
from fedgc.decoders import CalibratedDecoder
from fedgc.gram import GramModel
from fedgc.updates import Arrays, Update


class SquareOfRound(ABC):
    """What is known in a round of the square of the exact update."""

    def add(self, row: int, update: Arrays, *, lasting: bool = False) -> None:  # noqa: B027  (some need no updates)
        """Take in the coded update of a row of the encoding matrix; see :meth:`fedgc.decoders.StreamingSum.add`."""

    @abstractmethod
    def square(self, decoded: Arrays, scale: float) -> Update:
        """Return the estimate, entry by entry; entries may be negative.

        Parameters
        ----------
        decoded : mapping of str to ndarray
            The decoded update, already times `scale`.
        scale : float
            What sums of coded updates are to be multiplied by: one over the number of examples.
        """


class SecondMoment(ABC):
    """A rule for the second moment of an adaptive inner strategy.

    The decoded update d estimates the exact one, g, and its square ``g^2 + Var(d)`` instead of ``g^2``: a strategy that
    divides by the root of a mean of squares takes shorter steps the more stragglers there are, and the shorter in the
    directions that only they know.

    Attributes
    ----------
    name : str
        Its name in configurations.
    needs_updates : bool
        Whether it looks at each coded update, and not at the decoded one alone.
    needs_independence : bool
        Whether what is decoded must come independently of each other, as the shards of a work list do not, nor clients
        of one failure domain.
    """

    name: ClassVar[str]
    needs_updates: ClassVar[bool] = True
    needs_independence: ClassVar[bool] = False

    @abstractmethod
    def begin(
        self, decoder: CalibratedDecoder, arrivals: ArrivalModel, gram: GramModel, arrays: Arrays
    ) -> SquareOfRound:
        """Return what takes in a round's coded updates.

        Parameters
        ----------
        decoder : CalibratedDecoder
            The round's decoder.
        arrivals : ArrivalModel
            What may come, and how likely.
        gram : GramModel
            Model of the Gram matrix of the shard updates.
        arrays : mapping of str to ndarray
            The global arrays; only names, shapes and types are used.

        Raises
        ------
        ValueError
            If there is no such estimate for this code, decoder and arrivals.
        """
