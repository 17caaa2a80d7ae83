"""Fixed decoding weights in closed form: optimal among them for orthogonal updates, and for whole blocks always."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fedgc.arrivals import ArrivalModel, IndependentArrivals
from fedgc.codes import Code, MatrixCode
from fedgc.decoders.base import CalibratedDecoder, Decoder, refuse_unheld
from fedgc.decoders.linear import CalibratedLinear
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
from fedgc.odds import odds_shares
from fedgc.validation import check_variance_factor

#: Who never misses and does not round counts as one that adds so little.
_LEAST_VARIANCE = 1e-13


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

    Where clients of a block round what they send, each for itself, client i adds ``omega_i`` of its energy, and the
    best ``a_i`` are in proportion to ``(1 - p_i) / (p_i + omega_i)``: the weights of the base paper's authors for
    quantised messages, block by block.

    On work lists every shard must be sent by itself. The formula then holds copy by copy, with the probability to get
    that far in place of ``1 - p_i``, and is optimal for orthogonal updates all the same: the copies of a shard are
    with different clients.

    Parameters
    ----------
    variance_factor : array_like, shape (n_clients,), optional
        Of quantised messages of whole blocks, omega_i with ``E|Q(x) - x|^2 = omega_i |x|^2``; none by default.

    Raises
    ------
    ValueError
        If clients send sums over several shards of a work list; with variance factors, if the code is not one of whole
        blocks whose clients come independently.
    NoUnbiasedDecoderError
        If some shard can never arrive.

    References
    ----------
    H. Song, J. Choi, "Approximate Gradient Coding for Distributed Learning with Heterogeneous Stragglers",
    NeurIPS 2025, arXiv 2510.22539, Theorem 1; the same, arXiv 2605.15890.

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
    partial_work: ClassVar[tuple[str, ...]] = ("shard",)
    knows_own_rounding: ClassVar[bool] = True

    def __init__(self, variance_factor: ArrayLike | None = None) -> None:
        self._factors = (
            None
            if variance_factor is None
            else check_variance_factor(variance_factor, np.size(np.asarray(variance_factor)))
        )

    def for_own_rounding(self, variance_factor: NDArray[np.float64]) -> FixedDecoder:
        """Return the rule for messages that each client rounds for itself; see the base class."""
        return FixedDecoder(variance_factor)

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        if self._factors is not None:
            return _of_rounded_blocks(code, arrivals, gram, check_variance_factor(self._factors, code.n_clients))
        if not isinstance(arrivals, IndependentArrivals):
            return _of_single_shards(code, arrivals, gram)
        straggle_prob = arrivals.straggle_prob
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


def _of_rounded_blocks(
    code: Code, arrivals: ArrivalModel, gram: GramModel, variance_factor: NDArray[np.float64]
) -> CalibratedDecoder:
    """Return the weights of blocks whose members round their messages for themselves; zero for who sends nothing."""
    if code.blocks is None or not isinstance(arrivals, IndependentArrivals):
        raise ValueError(
            f"variance_factor needs whole blocks that come independently; got {type(code).__name__} and "
            f"{type(arrivals).__name__}"
        )
    of_client, of_shard, n_blocks = code.blocks
    come = 1.0 - arrivals.straggle_prob
    worth = come / np.maximum(arrivals.straggle_prob + variance_factor, _LEAST_VARIANCE)
    total = np.bincount(of_client, worth, n_blocks)
    if (total == 0.0).any():
        shard = int(np.argmax((total == 0.0)[of_shard]))
        raise NoUnbiasedDecoderError(f"every shard must be sent by a client; got none for shard {shard}")
    weights = np.divide(worth, total[of_client] * come, out=np.zeros_like(worth), where=worth > 0.0)
    calibrated = CalibratedLinear(code, weights, arrivals, gram)
    merged = gram.merge(of_shard, n_blocks)
    energy = (merged.incoherent + merged.coherent**2)[of_client]
    noise = np.where(weights > 0.0, variance_factor, 0.0) * energy
    ones = np.ones(code.n_shards)
    calibrated.error += float(come @ (weights**2 * noise)) / gram.inner(ones, ones)
    calibrated.residual_error = calibrated.error
    return calibrated


def _of_single_shards(code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
    """Return the weights of rows that may depend on each other, of one shard each."""
    matrix = code.sparse_matrix
    most = int(np.diff(matrix.indptr).max())
    if most > 1:
        raise ValueError(f"rows of the code must be of one shard (sums='shard') for decoder 'fixed'; got one of {most}")
    come = np.minimum(arrivals.row_probability, 1.0)
    possible = np.flatnonzero(1.0 - come < 1.0)
    shard = matrix.indices[possible].astype(np.intp)
    served = np.bincount(shard, minlength=code.n_shards)
    if (served == 0).any():
        raise NoUnbiasedDecoderError(
            f"every shard must be able to arrive; got shard {int(served.argmin())}, which cannot"
        )
    shares, _ = odds_shares(1.0 - come[possible], shard, code.n_shards)
    weights = np.zeros(code.n_rows)
    weights[possible] = shares / (come[possible] * matrix.data[possible])
    return CalibratedLinear(code, weights, arrivals, gram)
