"""Average whoever came, however much of its work each has done."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code, WorkLists
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.decoding import EarlyWeights, SplitWeights
from fedgc.gram import GramModel


class PartialMeanDecoder(Decoder):
    """The mean of the means of those who came: FedProx with clients that have done a part of their work. Biased.

    Notes
    -----
    A client with d of its L shards done counts as if their mean were that of all L, so that each shard done counts
    ``(L / d) sum_i L_i / sum_(i came) L_i`` times; clients that have finished no shard count as not come. Of codes with
    copies the sum is divided by the load. Shards are taken to be of one size.

    References
    ----------
    T. Li, A. K. Sahu, M. Zaheer, M. Sanjabi, A. Talwalkar, V. Smith, "Federated Optimization in Heterogeneous
    Networks", MLSys 2020, for partial work in place of dropping stragglers.

    Examples
    --------
    Two clients with two shards each; the second has done one of them:

    >>> from fedgc.codes import WorkLists
    >>> code = WorkLists([[0, 1], [2, 3]], n_shards=4)
    >>> calibrated = PartialMeanDecoder().calibrate(code, [0.5] * 4, GramModel.uniform(4, 0.0))
    >>> calibrated.decode([False, True, True, False]).coverage.tolist()
    [1.0, 1.0, 2.0, 0.0]
    """

    name: ClassVar[str] = "partial-mean"
    unbiased: ClassVar[bool] = False

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        return _CalibratedPartialMean(code)


class _CalibratedPartialMean(CalibratedDecoder):
    def __init__(self, code: Code) -> None:
        super().__init__(code)
        clients = range(code.n_clients)
        self._length = np.array([code.shards_of(client).size for client in clients], dtype=np.float64)
        rows = [code.rows_of(client).size if isinstance(code, WorkLists) else 1 for client in clients]
        self._client = np.repeat(clients, rows)
        self._copies = code.load
        self._row_size = np.diff(code.sparse_matrix.indptr).astype(np.float64)
        # Where a client sends one sum, its row tells how much it has done; else that is known when all rows are there.
        self._one_row = np.ones(code.n_clients, dtype=np.bool_)
        if isinstance(code, WorkLists):
            self._one_row = np.array([len(code.segments_of(client)) == 1 for client in clients])
        else:
            self._copies = float(np.mean(code.coverage(np.ones(code.n_rows))))

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        """Return the weights as shares of each client, and what all who came have of the work in the end."""
        done = np.bincount(self._client[arrived], self._row_size[arrived], self.code.n_clients)
        came = done > 0.0
        share = np.divide(self._length, done, out=np.zeros(done.size), where=came)
        scale = self._length.sum() / max(self._length[came].sum(), 1.0) / self._copies
        return SplitWeights(np.zeros(arrived.size), np.where(arrived, share[self._client], 0.0), scale)

    def early_weights(self, row: int) -> EarlyWeights | None:
        """Return the row's share, if it is all that its client sends."""
        client = self._client[row]
        if not self._one_row[client]:
            return None
        return EarlyWeights(0.0, float(self._length[client] / self._row_size[row]), row)

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        split = self.split(arrived)
        return split.alone + split.common * split.scalar
