"""Rules whose weights are settled before the round: bias and residual error in closed form, for any code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel, IndependentArrivals
from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder
from fedgc.decoders.decoding import EarlyWeights
from fedgc.gram import GramModel


class CalibratedLinear(CalibratedDecoder):
    """Row i counts with the weight w_i whenever it arrives.

    Notes
    -----
    With the probability q_i that row a_i of the encoding matrix arrives, ``E[v] = A' (q w)``. The parts of the arrival
    model are independent, so that their variances add up:

        E[(v - 1)' G (v - 1)] = (E[v] - 1)' G (E[v] - 1) + sum over parts of (E[u' G u] - E[u]' G E[u]),

    u being what the part adds to v. A client that sends one row or nothing adds ``p_i q_i w_i^2 a_i' G a_i``,
    p = 1 - q.
    """

    def __init__(
        self, code: Code, decoding_weights: NDArray[np.float64], arrivals: ArrivalModel, gram: GramModel
    ) -> None:
        super().__init__(code)
        self._fixed_weights = decoding_weights
        self.bias = code.coverage(arrivals.row_probability * decoding_weights) - 1.0
        if isinstance(arrivals, IndependentArrivals):
            matrix, p = code.sparse_matrix, arrivals.straggle_prob
            energy = np.asarray((matrix * matrix) @ gram.incoherent + (matrix @ gram.coherent) ** 2, dtype=np.float64)
            variance = float(np.sum(p * (1.0 - p) * decoding_weights**2 * energy))
        else:
            variance = self._variance(arrivals, gram)
        ones = np.ones(code.n_shards)
        self.error = (gram.inner(self.bias, self.bias) + variance) / gram.inner(ones, ones)
        self.residual_error = self.error

    def _variance(self, arrivals: ArrivalModel, gram: GramModel) -> float:
        total = 0.0
        for part in arrivals.parts():
            rows = self.code.sparse_matrix[part.rows]
            added = np.asarray((part.outcomes * self._fixed_weights[part.rows]) @ rows, dtype=np.float64)
            gap = added - part.probability @ added
            total += float(part.probability @ (gap**2 @ gram.incoherent + (gap @ gram.coherent) ** 2))
        return total

    def early_weights(self, row: int) -> EarlyWeights:
        """Return the row's weight, which is settled; every copy counts."""
        return EarlyWeights(float(self._fixed_weights[row]), 0.0, row)

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.where(arrived, self._fixed_weights, 0.0)
