"""Fixed decoding weights in closed form: each client's weight is settled before the round."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.gram import GramModel
from fedgc.odds import odds_shares


class FixedDecoder(Decoder):
    """The best weights that do not depend on who else arrives, for codes with whole blocks.

    Notes
    -----
    Let p_i be the straggle probability and ``delta_i = p_i / (1 - p_i)``. Client i of block g counts with

        w_i = a_i / (1 - p_i),    a_i = (1 / delta_i) / sum over members l of g of (1 / delta_l),

    so that ``E[sum_i w_i 1{i arrived}] = sum_i a_i = 1``. The members of a block send the same vector u_g, the clients
    are independent, and hence the residual error is ``sum_g (u_g' u_g) / sum_l (1 / delta_l)``: the a_i minimise it
    block by block, whatever the other blocks' updates are. This is the base paper's Theorem 1 within each block, and at
    the same time its optimum for orthogonal updates. In return for weights that the clients could apply themselves, it
    counts a block twice when two members come.

    A client with p_i = 0 makes its block certain: it gets the whole weight, split evenly if there are several.

    References
    ----------
    H. Song, J. Choi, "Approximate Gradient Coding for Distributed Learning with Heterogeneous Stragglers",
    NeurIPS 2025, arXiv 2510.22539, Theorem 1.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> code = FractionalRepetition([0, 0], [0])
    >>> calibrated = FixedDecoder().calibrate(code, [0.5, 0.5], GramModel([1.0], [0.0]))
    >>> calibrated.decode([True, False]).decoding_weights.tolist(), calibrated.residual_error
    ([1.0, 0.0], 0.5)
    """

    name: ClassVar[str] = "fixed"

    def _calibrate(self, code: Code, straggle_prob: NDArray[np.float64], gram: GramModel) -> CalibratedDecoder:
        return _CalibratedFixed(code, straggle_prob, gram)


class _CalibratedFixed(CalibratedDecoder):
    def __init__(self, code: Code, straggle_prob: NDArray[np.float64], gram: GramModel) -> None:
        super().__init__(code)
        if code.blocks is None:
            raise ValueError("decoder 'fixed' needs a code with blocks; got " + type(code).__name__)
        of_client, of_shard, n_blocks = code.blocks
        shares, variance = odds_shares(straggle_prob, of_client, n_blocks)
        self._fixed_weights = shares / (1.0 - straggle_prob)

        block_gram = gram.merge(of_shard, n_blocks)
        energy = block_gram.incoherent + block_gram.coherent**2
        ones = np.ones(n_blocks)
        self.residual_error = float(energy @ variance) / block_gram.inner(ones, ones)

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.where(arrived, self._fixed_weights, 0.0)
