"""Settled weights for a graph: little noise of the mean model, and little disagreement of the nodes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code, MatrixCode
from fedgc.decentralised.mixing import check_mixing
from fedgc.decoders.base import CalibratedDecoder, Decoder, refuse_unheld
from fedgc.decoders.linear import CalibratedLinear
from fedgc.gram import GramModel

Matrix = NDArray[np.float64]

#: Floor of delta: a node that never straggles costs nothing, and the program would leave its coefficients open.
_LEAST_DELTA = 1e-12


def disagreement_form(mixing: Matrix) -> Matrix:
    """Return the quadratic form of the disagreement that a lasting push of the nodes leaves, (n_nodes, n_nodes).

    Parameters
    ----------
    mixing : ndarray, shape (n_nodes, n_nodes)
        Doubly stochastic gossip weights.

    Notes
    -----
    If node i is pushed by h_i in every round before all average, ``x <- W (x + h)``, models settle at

        x - mean x = (sum over s >= 1 of (W^s - J)) h = D (I - D)^-1 h,   J = 11' / n,  D = W - J,

    apart from their mean. The form is ``M = P' P`` for that P. It is zero for the complete graph with equal weights,
    and its largest eigenvalue grows with the fourth power of the length of a ring.

    Examples
    --------
    >>> from fedgc.decentralised import complete, metropolis_weights, ring
    >>> [disagreement_form(metropolis_weights(g))[0, 0].round(3).item() for g in (complete(8), ring(8), ring(16))]
    [0.0, 4.32, 46.16]
    """
    n = len(mixing)
    gap = mixing - 1.0 / n
    push = gap @ np.linalg.inv(np.eye(n) - gap)
    form: Matrix = push.T @ push
    return form


class GraphFixedDecoder(Decoder):
    """Unbiased weights of nodes on a graph, settled before the round: few swings of the mean, nodes close together.

    Parameters
    ----------
    mixing : array_like, shape (n_nodes, n_nodes)
        The gossip weights.
    disagreement : float
        What disagreement counts against noise; 0 for the weights of :class:`fedgc.decoders.FixedDecoder`.

    Raises
    ------
    ValueError
        If the mixing matrix cannot serve or is of another number of nodes than the code, or `disagreement` is negative.
    NoUnbiasedDecoderError
        If a shard has no holder.

    Notes
    -----
    A node whose gradients are ready counts shard j with ``a_ij / (1 - p_i)``, where ``sum_i a_ij = 1``: it does not see
    who else holds the shard and is ready, so that its weight has to be settled before, and the mean model moves along
    an unbiased gradient for every such a. For shard gradients that are orthogonal, of energies d_j, a round's noise is
    ``sum_j d_j sum_i delta_i a_ij^2`` with ``delta_i = p_i / (1 - p_i)``, on every graph. On its own it is least for
    a_ij in proportion to ``1 / delta_i``, that is for weights of gradients, ``a_ij / (1 - p_i)``, in proportion to
    ``1 / p_i``. But then reliable nodes also do most of what all do in the mean, and where gossip is slow that drives
    the models apart: a shard's holders push by ``a_ij g_j`` in every round, which leaves a disagreement of
    ``d_j a_j' M a_j``, M being :func:`disagreement_form`. Taken together, shard by shard, the least of

        a_j' (diag(delta) + kappa M) a_j   is at   a_j = Q^-1 1 / (1' Q^-1 1),   Q = (diag(delta) + kappa M)_SS,

    S being the shard's holders. Weights may be negative.

    How much disagreement counts depends on the step: noise costs in proportion to it, disagreement to its square. Steps
    that are tuned are as long as disagreement allows; it is then about as large as the noise. Hence
    ``kappa = disagreement / max(1, tr M / n)``. On well connected graphs M is small and the weights are those of
    least variance.

    Examples
    --------
    >>> from fedgc.decentralised import metropolis_weights, node_coefficients, ring
    >>> code = MatrixCode([[0.5], [0.5], [0.0]])
    >>> decoder = GraphFixedDecoder(metropolis_weights(ring(3)))
    >>> calibrated = decoder.calibrate(code, [0.25, 0.5, 0.5], GramModel([1.0], [0.0]))
    >>> node_coefficients(calibrated).toarray().ravel().round(3).tolist()
    [1.0, 0.5, 0.0]
    """

    name: ClassVar[str] = "graph-fixed"
    weights_settled: ClassVar[bool] = True
    partial_work: ClassVar[tuple[str, ...]] = ()

    def __init__(self, mixing: ArrayLike, *, disagreement: float = 1.0) -> None:
        if not 0.0 <= disagreement < np.inf:
            raise ValueError(f"disagreement must be a finite number of at least 0; got {disagreement!r}")
        form = disagreement_form(check_mixing(mixing))
        self._form = form * (disagreement / max(1.0, float(np.trace(form)) / len(form)))

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        p = self._straggle_prob(arrivals)
        if p.size != len(self._form):
            raise ValueError(f"mixing must be of {p.size} nodes, as the code; got {len(self._form)}")
        refuse_unheld(code)
        delta = np.maximum(p / (1.0 - p), _LEAST_DELTA)
        columns = code.sparse_matrix.tocsc()
        shares = np.empty(columns.nnz)
        for first, last in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
            holders = columns.indices[first:last]
            form = np.diag(delta[holders]) + self._form[np.ix_(holders, holders)]
            # Scaled to ones on the diagonal: probabilities may differ by many orders.
            scale = 1.0 / np.sqrt(np.diag(form))
            own = scale * np.linalg.solve(form * np.outer(scale, scale), scale)
            own /= own.sum()
            shares[first:last] = own / own.sum()
        encoded = MatrixCode(
            sparse.csr_array(sparse.csc_array((shares, columns.indices, columns.indptr), shape=columns.shape))
        )
        return CalibratedLinear(encoded, 1.0 / (1.0 - p), arrivals, gram)
