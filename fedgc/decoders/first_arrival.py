"""First arrival per block: every block that came counts once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.decoding import EarlyWeights
from fedgc.gram import GramModel


class FirstArrivalDecoder(Decoder):
    """ErasureHead's rule, de-duplicated: blocks that came count once, missing ones are lost. Biased towards zero.

    Notes
    -----
    With the probability P_g that all members of block g miss, ``E[v] = 1 - P_g`` on the block, and the error of the
    block sums is a bias plus independent variances ``P_g (1 - P_g)``.

    References
    ----------
    H. Wang, Z. Charles, D. Papailiopoulos, "ErasureHead: Distributed Gradient Descent without Delays Using Approximate
    Gradient Coding", 2019, arXiv 1901.09671.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> code = FractionalRepetition([0, 0, 1], [0, 1])
    >>> calibrated = FirstArrivalDecoder().calibrate(code, [0.5, 0.5, 0.5], GramModel.uniform(2, 0.0))
    >>> calibrated.decode([True, True, False]).coverage.tolist(), calibrated.bias.tolist()
    ([1.0, 0.0], [-0.25, -0.5])
    """

    name: ClassVar[str] = "first-arrival"
    unbiased: ClassVar[bool] = False
    partial_work: ClassVar[tuple[str, ...]] = ()

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        straggle_prob = self._straggle_prob(arrivals)
        return _CalibratedFirstArrival(code, straggle_prob, gram)


class _CalibratedFirstArrival(CalibratedDecoder):
    def __init__(self, code: Code, straggle_prob: NDArray[np.float64], gram: GramModel) -> None:
        super().__init__(code)
        if code.blocks is None:
            raise ValueError("decoder 'first-arrival' needs a code with blocks; got " + type(code).__name__)
        self._of_client, of_shard, self._n_blocks = code.blocks
        missing = np.ones(self._n_blocks)
        np.multiply.at(missing, self._of_client, straggle_prob)
        self.bias = -missing[of_shard]
        block_gram = gram.merge(of_shard, self._n_blocks)
        ones = np.ones(self._n_blocks)
        energy = block_gram.incoherent + block_gram.coherent**2
        error = block_gram.inner(missing, missing) + float(np.sum(missing * (1.0 - missing) * energy))
        self.residual_error = error / block_gram.inner(ones, ones)

    def early_weights(self, row: int) -> EarlyWeights:
        """Return one: of a block's copies the first counts."""
        return EarlyWeights(1.0, 0.0, int(self._of_client[row]))

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        copies = np.bincount(self._of_client, arrived, self._n_blocks)
        # Copies of a block are equal: sharing its weight among them is the same as taking the first.
        return np.where(arrived, 1.0 / np.maximum(copies, 1.0)[self._of_client], 0.0)

    def _settled(self, arrived: NDArray[np.bool_]) -> bool:
        return bool((np.bincount(self._of_client[arrived], minlength=self._n_blocks) > 0).all())
