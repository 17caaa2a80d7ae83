"""Fixed decoding weights in closed form: optimal among them for orthogonal updates, and for whole blocks always."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import sparse

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code, MatrixCode
from fedgc.decoders.base import CalibratedDecoder, Decoder, refuse_unheld
from fedgc.decoders.linear import CalibratedLinear
from fedgc.gram import GramModel
from fedgc.odds import odds_shares


class FixedDecoder(Decoder):
    """The best encoding coefficients and weights that do not depend on who else arrives, for orthogonal updates.

    Notes
    -----
    Let p_i be the straggle probability and ``delta_i = p_i / (1 - p_i)``. Shard j counts, through its holder i, with

        w_ij = a_ij / (1 - p_i),    a_ij = (1 / delta_i) / sum over holders l of j of (1 / delta_l),

    so that ``E[sum_i w_ij 1{i arrived}] = sum_i a_ij = 1``. For orthogonal updates (G diagonal) the a_ij minimise the
    residual error ``sum_i delta_i a_i' G a_i`` shard by shard. In a code with blocks all shards of a client have the
    same a_i, its members keep sending the plain sum, and the a_i are optimal for every G: the members' vectors are
    equal and the clients independent. That is also the base paper's Theorem 1 within each block.

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
    weights_settled: ClassVar[bool] = True

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        straggle_prob = self._straggle_prob(arrivals)
        inverse_arrival = 1.0 / (1.0 - straggle_prob)
        if code.blocks is not None:
            shares, _ = odds_shares(straggle_prob, code.blocks.of_client, code.blocks.n_blocks)
            return CalibratedLinear(code, shares * inverse_arrival, arrivals, gram)
        refuse_unheld(code)
        copies = code.sparse_matrix.tocoo()
        holder, shard = copies.coords
        shares, _ = odds_shares(straggle_prob[holder], shard.astype(np.intp), code.n_shards)
        encoded = MatrixCode(sparse.csr_array((shares, (holder, shard)), shape=copies.shape))
        return CalibratedLinear(encoded, inverse_arrival, arrivals, gram)
