"""Settled weights that trade the bias of the whole sum against its variance: the second track of two-track decoding."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.linear import CalibratedLinear
from fedgc.gram import GramModel
from fedgc.validation import check_positive

#: Clients that never straggle are taken to do so this rarely: in the limit they share the whole sum.
_RARELY = 1e-9


class BoundedMassDecoder(Decoder):
    """Weights ``lambda^2 k / (p_i r_i (1 + lambda^2 sum_l 1 / d_l))``, ``d = p / (1 - p)``, r_i client i's row sum.

    Parameters
    ----------
    trade : float
        lambda, above 0: what bias costs beside variance.

    Raises
    ------
    ValueError
        If `trade` is not a finite number above 0, or a client's coefficients sum to zero.

    Notes
    -----
    With ``x_i = (1 - p_i) w_i r_i``, what client i adds to the number of shards k on average, they minimise
    ``lambda^2 (sum_i x_i - k)^2 + sum_i d_i x_i^2``: only the whole sum is to be right, not every shard. All rows count
    whenever they come, copies too. Meant for the second moment of Adam, see :class:`fedgc.moments.SecondTrack`.

    References
    ----------
    H. Song, J. Choi, arXiv 2510.22539.

    Examples
    --------
    >>> from fedgc.codes import Uncoded
    >>> calibrated = BoundedMassDecoder().calibrate(Uncoded(2, 2), [0.5, 0.5], GramModel.uniform(2, 0.0))
    >>> calibrated.decode([True, True]).decoding_weights.round(12).tolist()  # 2 / (0.5 * 3)
    [1.333333333333, 1.333333333333]
    """

    name: ClassVar[str] = "bounded-mass"
    unbiased: ClassVar[bool] = False
    weights_settled: ClassVar[bool] = True
    partial_work: ClassVar[tuple[str, ...]] = ()

    def __init__(self, trade: float = 1.0) -> None:
        self._trade = check_positive("trade", trade)

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        p = np.maximum(self._straggle_prob(arrivals), _RARELY)
        row_sum = np.asarray(code.sparse_matrix.sum(axis=1), dtype=np.float64).ravel()
        if (row_sum == 0.0).any():
            row = int(np.argmax(row_sum == 0.0))
            raise ValueError(f"rows of the encoding matrix must not sum to 0; got 0 for client {row}")
        squared = self._trade**2
        weight = squared * code.n_shards / (p * row_sum * (1.0 + squared * float(((1.0 - p) / p).sum())))
        return CalibratedLinear(code, weight, arrivals, gram)
