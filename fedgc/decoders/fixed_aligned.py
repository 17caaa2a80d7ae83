"""Fixed weights for aligned updates: row sums as in the base paper's Theorem 1, on any assignment."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsqr

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code, MatrixCode
from fedgc.decoders.base import CalibratedDecoder, Decoder, refuse_unheld
from fedgc.decoders.linear import CalibratedLinear
from fedgc.gram import GramModel
from fedgc.odds import odds_shares


class FixedAlignedDecoder(Decoder):
    """The best encoding coefficients with weights ``1 / (1 - p_i)`` if all updates point the same way.

    Notes
    -----
    For ``G = 11'`` only the row sums matter: minimise ``sum_i delta_i (sum_j a_ij)^2`` with columns that sum to one.
    Where the assignment joins all clients, Theorem 1 has the answer: row i sums to
    ``Y_i = m (1 / delta_i) / sum_l (1 / delta_l)``. Where it falls into several components, m is the number of shards
    of the component and the sum runs over its clients. Among the coefficients with these sums, those of least square
    are taken, which is what keeps the error low when the updates are not quite aligned.

    References
    ----------
    H. Song, J. Choi, arXiv 2510.22539, Theorem 1.

    Examples
    --------
    >>> from fedgc.codes import Chain
    >>> p = [0.2, 0.5, 0.8]
    >>> calibrated = FixedAlignedDecoder().calibrate(Chain(p), p, GramModel.uniform(3, 0.9))
    >>> bool(np.allclose(calibrated.code.encoding_matrix, Chain(p).encoding_matrix))
    True
    """

    name: ClassVar[str] = "fixed-aligned"
    weights_settled: ClassVar[bool] = True
    partial_work: ClassVar[tuple[str, ...]] = ()

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        straggle_prob = self._straggle_prob(arrivals)
        refuse_unheld(code)
        copies = code.sparse_matrix.tocoo()
        client, shard = (axis.astype(np.intp) for axis in copies.coords)
        n_clients, n_shards, n_copies = code.n_clients, code.n_shards, client.size
        edges = sparse.csr_array(
            (np.ones(n_copies), (client, n_clients + shard)), shape=(n_clients + n_shards, n_clients + n_shards)
        )
        n_parts, part = connected_components(edges, directed=False)
        shares, _ = odds_shares(straggle_prob, part[:n_clients].astype(np.intp), n_parts)
        row_sums = shares * np.bincount(part[n_clients:], minlength=n_parts)[part[:n_clients]]

        # One unknown per copy; a row per client (its sum) and per shard (one). The system is consistent in every
        # component, and lsqr returns its solution of least norm.
        copy = np.arange(n_copies)
        system = sparse.csr_array(
            (np.ones(2 * n_copies), (np.concatenate((client, n_clients + shard)), np.concatenate((copy, copy)))),
            shape=(n_clients + n_shards, n_copies),
        )
        wanted = np.concatenate((row_sums, np.ones(n_shards)))
        coefficients = np.zeros(n_copies)
        for _ in range(3):  # the solver stops at its tolerance; solving for the remainder brings the sums to rounding
            coefficients += lsqr(system, wanted - system @ coefficients, atol=1e-15, btol=1e-15)[0]
        encoded = MatrixCode(sparse.csr_array((coefficients, (client, shard)), shape=copies.shape))
        return CalibratedLinear(encoded, 1.0 / (1.0 - straggle_prob), arrivals, gram)
