"""Inverse probability weighting: the code's own coefficients, brought to a mean of one."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import sparse

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code, MatrixCode
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.linear import CalibratedLinear
from fedgc.gram import GramModel


class InverseProbabilityDecoder(Decoder):
    """Weights ``1 / (1 - p_i)`` on coefficients whose columns are scaled to sum to one.

    For the uncoded assignment this is inverse-probability FedAvg; for stochastic gradient coding, whose columns are
    ``1 / load`` each, the rule of its authors with unequal probabilities; for the base paper's two codes, their rule.
    A shard that nobody holds, which only a code that deals copies at random may have, is lost for good: of that code
    the rule is unbiased for what is held.

    Raises
    ------
    ValueError
        If the column of a shard that is held sums to zero.

    Examples
    --------
    >>> from fedgc.codes import Uncoded
    >>> calibrated = InverseProbabilityDecoder().calibrate(Uncoded(2, 2), [0.5, 0.2], GramModel.uniform(2, 0.0))
    >>> calibrated.decode([True, True]).decoding_weights.tolist()
    [2.0, 1.25]
    """

    name: ClassVar[str] = "inverse-probability"
    weights_settled: ClassVar[bool] = True
    partial_work: ClassVar[tuple[str, ...]] = ()

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        straggle_prob = self._straggle_prob(arrivals)
        column_sum = code.coverage(np.ones(code.n_clients))
        held = np.bincount(code.sparse_matrix.tocoo().col, minlength=code.n_shards) > 0
        none = (column_sum == 0.0) & held
        if none.any():
            shard = int(np.argmax(none))
            raise ValueError(f"columns of the encoding matrix must not sum to 0; got 0 for shard {shard}")
        encoded = code
        if not (column_sum[held] == 1.0).all():
            scale = np.divide(1.0, column_sum, out=np.ones_like(column_sum), where=held)
            encoded = MatrixCode(sparse.csr_array(code.sparse_matrix * scale[None, :]), allow_unheld=not held.all())
        return CalibratedLinear(encoded, 1.0 / (1.0 - straggle_prob), arrivals, gram)
