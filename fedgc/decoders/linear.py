"""Rules whose weights are settled before the round: bias and residual error in closed form, for any code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder
from fedgc.gram import GramModel


class CalibratedLinear(CalibratedDecoder):
    """Client i counts with the weight w_i whenever it arrives.

    Notes
    -----
    With independent arrivals, ``E[v] = A' (q w)`` and

        E[(v - 1)' G (v - 1)] = (E[v] - 1)' G (E[v] - 1) + sum_i p_i q_i w_i^2  a_i' G a_i

    over the rows a_i of the encoding matrix, q = 1 - p.
    """

    def __init__(
        self,
        code: Code,
        decoding_weights: NDArray[np.float64],
        straggle_prob: NDArray[np.float64],
        gram: GramModel,
    ) -> None:
        super().__init__(code)
        self._fixed_weights = decoding_weights
        matrix, arrive_prob = code.sparse_matrix, 1.0 - straggle_prob
        self.bias = code.coverage(arrive_prob * decoding_weights) - 1.0
        energy = np.asarray((matrix * matrix) @ gram.incoherent + (matrix @ gram.coherent) ** 2, dtype=np.float64)
        variance = float(np.sum(straggle_prob * arrive_prob * decoding_weights**2 * energy))
        ones = np.ones(code.n_shards)
        self.residual_error = (gram.inner(self.bias, self.bias) + variance) / gram.inner(ones, ones)

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.where(arrived, self._fixed_weights, 0.0)
