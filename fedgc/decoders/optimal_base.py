"""What the calibrated forms of the optimal decoder share: weights in two parts, of which one is known early."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from fedgc.decoders.base import CalibratedDecoder
from fedgc.decoders.decoding import EarlyWeights, SplitWeights
from fedgc.gram import GramModel

Vector = NDArray[np.float64]

#: The remainder that bounds the bias of one shard is not reached by all at once.
_RELATIVE_ROUNDING = 0.3


class CalibratedOptimal(CalibratedDecoder):
    """The optimal decoder for one round plan; :class:`fedgc.decoders.StreamingSum` decodes replies as they come."""

    @abstractmethod
    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        """Return the decoding weights in two parts.

        The scalar is R, the coherent mass of what is missing over one plus that of what came.
        """

    @abstractmethod
    def early_weights(self, row: int) -> EarlyWeights | None:
        """Return a row's weights if they do not depend on what else comes, else None.

        They do not if whatever else may arrive of the block has no shard in common with the row, or all.
        """

    def add_rounding(self, floor: float) -> None:
        """Restate a residual error, found for a Gram model with quantisation noise in it, as one of the updates alone.

        `floor` is that noise, for weights of one, over the energy of the whole without it.
        """
        if self.residual_error is not None:
            self.residual_error = self.residual_error * (1.0 + floor) + floor
            self.residual_error_rounding *= 1.0 + floor

    def _weights(self, arrived: NDArray[np.bool_]) -> Vector:
        alone, common, mass = self.split(arrived)
        weights: Vector = alone + common * mass
        return weights


def predicted_residual_error(gram: GramModel, excess: Vector, rounding: float) -> tuple[float, float]:
    """Return ``1' G (t - 1) / 1' G 1`` and how far rounding may have moved it.

    A bias of beta moves it by ``t' G beta / 1' G 1``, since ``G E[Q]`` is symmetric.
    """
    if not np.isfinite(rounding):
        return np.inf, np.inf
    ones = np.ones(excess.size)
    whole = gram.inner(ones, ones)
    target = 1.0 + excess
    slope = float(np.abs(gram.incoherent * target + gram.coherent * (gram.coherent @ target)).sum())
    # Rounding may leave a tiny negative value where nothing straggles.
    return max(0.0, gram.inner(ones, excess) / whole), _RELATIVE_ROUNDING * rounding * slope / whole
