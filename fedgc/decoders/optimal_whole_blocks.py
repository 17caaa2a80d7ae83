"""The optimal decoder where blocks arrive whole or not at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.calibration.whole_blocks import calibrate_whole_blocks
from fedgc.codes import Blocks, Code
from fedgc.decoders.decoding import Decoding, DecodingStatus, EarlyWeights, SplitWeights
from fedgc.decoders.optimal_base import CalibratedOptimal, Vector, predicted_residual_error
from fedgc.gram import GramModel
from fedgc.validation import check_arrived


class CalibratedForWholeBlocks(CalibratedOptimal):
    """The optimal decoder over independent blocks with two states each.

    Parameters
    ----------
    code : Code
        A code of blocks.
    blocks : Blocks
        Its blocks.
    log_missing : ndarray, shape (n_blocks,)
        Log of the probability that no member of a block arrives, below 0.
    gram : GramModel
        Gram model of its shards.
    """

    def __init__(self, code: Code, blocks: Blocks, log_missing: Vector, gram: GramModel) -> None:
        super().__init__(code)
        self._of_client, of_shard, self._n_blocks = blocks
        merged = gram.merge(of_shard, self._n_blocks)
        excess, self.rounding = calibrate_whole_blocks(np.exp(log_missing), -np.expm1(log_missing), merged)
        self.bias = np.zeros(code.n_shards)
        self.residual_error, self.residual_error_rounding = predicted_residual_error(merged, excess, self.rounding)
        d, r = merged.incoherent, merged.coherent
        self._target = 1.0 + excess
        self._common = r / d
        self._mass = r * self._target
        self._x = r**2 / d

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        """Return the decoding weights in two parts; see the base class."""
        copies = np.bincount(self._of_client[arrived], minlength=self._n_blocks)
        came = copies > 0
        missing_mass = float(self._mass @ ~came) / (1.0 + float(self._x @ came))
        # Copies of a block are equal: shared among them, its weight also averages what noise they have.
        share = arrived / np.maximum(copies, 1)[self._of_client]
        return SplitWeights(self._target[self._of_client] * share, self._common[self._of_client] * share, missing_mass)

    def early_weights(self, row: int) -> EarlyWeights | None:
        """Return a row's weights, the same for all members of its block; see the base class."""
        block = int(self._of_client[row])
        return EarlyWeights(float(self._target[block]), float(self._common[block]), block)

    def decode(self, arrived: ArrayLike) -> Decoding:
        """Return the decoding weights for the clients that arrived; see the base class. Counts the copies only once."""
        came = check_arrived(arrived, self.code.n_clients)
        copies = np.bincount(self._of_client[came], minlength=self._n_blocks)
        there = copies > 0
        missing_mass = float(self._mass @ ~there) / (1.0 + float(self._x @ there))
        block_weight = (self._target + self._common * missing_mass) / np.maximum(copies, 1)
        status = DecodingStatus.EMPTY
        if there.any():
            status = DecodingStatus.COMPLETE if there.all() else DecodingStatus.PARTIAL
        return Decoding(block_weight[self._of_client] * came, status, self.code)

    def _settled(self, arrived: NDArray[np.bool_]) -> bool:
        return bool((np.bincount(self._of_client[arrived], minlength=self._n_blocks) > 0).all())
