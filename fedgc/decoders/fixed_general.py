"""Fixed weights for any Gram model: a quadratic program, solved through its stationarity conditions."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code, MatrixCode
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.linear import CalibratedLinear
from fedgc.gram import GramModel
from fedgc.odds import odds_shares

#: Floor of delta: a client that never straggles costs nothing, and the program would leave its coefficients open.
_LEAST_DELTA = 1e-12


class FixedGeneralDecoder(Decoder):
    """The best encoding coefficients with weights ``1 / (1 - p_i)``, for ``G = diag(d) + r r'``.

    Notes
    -----
    Minimise ``sum_i delta_i a_i' G a_i`` over coefficients on the assignment's support with columns that sum to one. On
    client i's shards S the stationarity condition is ``delta_i G_SS a_i = lambda_S`` with one multiplier per shard, and
    by Sherman and Morrison

        a_i = (1 / delta_i) [ lambda / d - (r / d) (r' (lambda / d)) / (1 + x_i) ]_S,   x_i = sum over S of r^2 / d.

    That the columns sum to one is then a symmetric positive definite system for lambda: a diagonal minus one rank-one
    term per client, as sparse as the overlaps of the clients, solved by a sparse factorisation.

    Examples
    --------
    >>> from fedgc.codes import MatrixCode
    >>> code, p = MatrixCode([[1, 1, 0], [0, 1, 1]]), [0.2, 0.6]
    >>> calibrated = FixedGeneralDecoder().calibrate(code, p, GramModel.uniform(3, 0.5))
    >>> calibrated.code.encoding_matrix.sum(axis=0).round(12).tolist()
    [1.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "fixed-general"

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        straggle_prob = self._straggle_prob(arrivals)
        copies = code.sparse_matrix.tocoo()
        client, shard = (axis.astype(np.intp) for axis in copies.coords)
        delta = np.maximum(straggle_prob / (1.0 - straggle_prob), _LEAST_DELTA)
        # Scaled to the most reliable client, so that the system stays in range.
        weight = delta.min() / delta
        d, r = gram.incoherent, gram.coherent
        x = np.bincount(client, (r**2 / d)[shard], code.n_clients)
        slope = sparse.csr_array(
            ((r / d)[shard] * np.sqrt(weight / (1.0 + x))[client], (client, shard)), shape=copies.shape
        )
        diagonal = np.bincount(shard, weight[client], code.n_shards) / d
        # Scaled by the square roots of the diagonal, energies that span many orders do not cost digits.
        scale = 1.0 / np.sqrt(diagonal)
        scaled = slope * scale[None, :]
        system = sparse.csc_array(sparse.eye_array(code.n_shards) - scaled.T @ scaled)
        solver = splu(system)
        wanted = scale.copy()
        inner = solver.solve(wanted)
        inner += solver.solve(wanted - system @ inner)
        multiplier = scale * inner

        along = np.bincount(client, (r / d * multiplier)[shard], code.n_clients) / (1.0 + x)
        coefficients = weight[client] * ((multiplier / d)[shard] - (r / d)[shard] * along[client])
        # Where updates are nearly aligned the multipliers lose digits. Whatever the columns then lack goes to their
        # holders by the odds: unbiasedness stays exact, and only the optimum is missed by as much.
        shares, _ = odds_shares(straggle_prob[client], shard, code.n_shards)
        for _ in range(2):
            coefficients += shares * (1.0 - np.bincount(shard, coefficients, code.n_shards))[shard]
        encoded = MatrixCode(sparse.csr_array((coefficients, (client, shard)), shape=copies.shape))
        return CalibratedLinear(encoded, 1.0 / (1.0 - straggle_prob), arrivals, gram)
