"""What decoding one set of arrivals gives: weights, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code


class DecodingStatus(Enum):
    """How much of the shards the arrivals covered."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    EMPTY = "empty"


class CalibrationStatus(Enum):
    """What the promises of a calibrated decoder are worth.

    ``EXACT``: the bias is what is said to 1e-10, the residual error to 1e-9 of itself (or to 1e-14, if it is smaller
    than 1e-5). ``ESTIMATED``: calibrated on random arrivals, to ``bias_standard_error``. ``INACCURATE``: the input is
    so ill-conditioned that rounding may leave more than that, up to ``rounding`` and ``residual_error_rounding``; or
    shards that change places differ, and the residual error is a bound.
    """

    EXACT = "exact"
    ESTIMATED = "estimated"
    INACCURATE = "inaccurate"


class SplitWeights(NamedTuple):
    """Decoding weights ``alone + common * scalar``: only the scalar depends on all that came.

    Attributes
    ----------
    alone, common : ndarray, shape (n_rows,)
        Zero for rows that did not arrive.
    scalar : float
        The scalar.
    """

    alone: NDArray[np.float64]
    common: NDArray[np.float64]
    scalar: float


class EarlyWeights(NamedTuple):
    """A row's two weights, known before anything else has come.

    Attributes
    ----------
    alone, common : float
        As in :class:`SplitWeights`.
    copy_of : int
        The same number for rows that are copies of each other, of which only the first counts.
    """

    alone: float
    common: float
    copy_of: int


@dataclass(frozen=True, eq=False)
class Decoding:
    """The outcome of decoding one set of arrivals.

    Attributes
    ----------
    decoding_weights : ndarray, shape (n_rows,)
        Weight w_i of each coded update in the decoded aggregate; zero for those that did not arrive. In most codes
        there is one per client.
    status : DecodingStatus
        Whether every shard, some or none arrived.
    code : Code
        The code that was decoded.
    """

    decoding_weights: NDArray[np.float64]
    status: DecodingStatus
    code: Code

    @cached_property
    def coverage(self) -> NDArray[np.float64]:
        """``v = A' w``, (n_shards,): how often each shard's update counts. The target is one everywhere."""
        return self.code.coverage(self.decoding_weights)
