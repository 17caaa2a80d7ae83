"""Fixed weights for any Gram model: a quadratic program, solved through its stationarity conditions."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code, MatrixCode
from fedgc.decoders.base import CalibratedDecoder, Decoder, refuse_unheld
from fedgc.decoders.linear import CalibratedLinear
from fedgc.gram import GramModel
from fedgc.odds import odds_shares
from fedgc.validation import one_of

Vector = NDArray[np.float64]

#: Floor of delta: a client that never straggles costs nothing, and the program would leave its coefficients open.
_LEAST_DELTA = 1e-12
#: Violation of the stationarity conditions up to which the coefficients count as the best.
_STATIONARY = 1e-8


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

    Where the input is so ill-conditioned that the conditions are not met to 1e-8, the better of what came out and the
    coefficients for orthogonal updates is taken, and the status is ``INACCURATE``: unbiased, but perhaps not the best.

    Parameters
    ----------
    solver : str
        ``"stationarity"`` for the above, which scales; ``"cvxpy"`` hands the program to an interior-point solver, for
        small sizes and as a check.

    Raises
    ------
    ValueError
        If there is no such solver.

    Examples
    --------
    >>> from fedgc.codes import MatrixCode
    >>> code, p = MatrixCode([[1, 1, 0], [0, 1, 1]]), [0.2, 0.6]
    >>> calibrated = FixedGeneralDecoder().calibrate(code, p, GramModel.uniform(3, 0.5))
    >>> calibrated.code.encoding_matrix.sum(axis=0).round(12).tolist()
    [1.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "fixed-general"
    weights_settled: ClassVar[bool] = True
    partial_work: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, solver: str = "stationarity") -> None:
        self._solver = one_of("solver", solver, ("stationarity", "cvxpy"))

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        straggle_prob = self._straggle_prob(arrivals)
        refuse_unheld(code)
        copies = code.sparse_matrix.tocoo()
        client, shard = (axis.astype(np.intp) for axis in copies.coords)
        delta = np.maximum(straggle_prob / (1.0 - straggle_prob), _LEAST_DELTA)
        solve = _stationary if self._solver == "stationarity" else _by_cvxpy
        coefficients = solve(copies.shape, client, shard, delta, gram)
        # Where updates are nearly aligned the multipliers lose digits. Whatever the columns then lack goes to their
        # holders by the odds: unbiasedness stays exact, and only the optimum is missed by as much.
        shares, _ = odds_shares(straggle_prob[client], shard, code.n_shards)
        for _ in range(2):
            coefficients += shares * (1.0 - np.bincount(shard, coefficients, code.n_shards))[shard]

        def calibrated(values: Vector) -> CalibratedLinear:
            encoded = MatrixCode(sparse.csr_array((values, (client, shard)), shape=copies.shape))
            return CalibratedLinear(encoded, 1.0 / (1.0 - straggle_prob), arrivals, gram)

        best = calibrated(coefficients)
        plain = calibrated(shares)
        if plain.error < best.error:
            best, coefficients = plain, shares
        violation = _violation(coefficients, client, shard, delta=delta, gram=gram)
        best.rounding = float(4.0 * np.finfo(np.float64).eps * np.abs(coefficients).max())
        best.residual_error_rounding = violation * best.error if violation > _STATIONARY else 0.0
        return best


def _violation(
    own: Vector, client: NDArray[np.intp], shard: NDArray[np.intp], *, delta: Vector, gram: GramModel
) -> float:
    """Return how far ``delta_i (G a_i)_j`` differs between the holders of a shard, relative to the largest of them."""
    along = np.bincount(client, own * gram.coherent[shard])[client]
    gradient = delta[client] * (gram.incoherent[shard] * own + gram.coherent[shard] * along)
    high, low = np.full(gram.incoherent.size, -np.inf), np.full(gram.incoherent.size, np.inf)
    np.maximum.at(high, shard, gradient)
    np.minimum.at(low, shard, gradient)
    largest = float(np.abs(gradient).max())
    return float((high - low).max()) / largest if largest > 0.0 else 0.0


def _stationary(
    shape: tuple[int, int], client: NDArray[np.intp], shard: NDArray[np.intp], delta: Vector, gram: GramModel
) -> Vector:
    """Return the coefficient of each copy from the stationarity conditions."""
    n_clients, n_shards = shape
    # Scaled to the most reliable client, so that the system stays in range.
    weight = delta.min() / delta
    d, r = gram.incoherent, gram.coherent
    x = np.bincount(client, (r**2 / d)[shard], n_clients)
    slope = sparse.csr_array(((r / d)[shard] * np.sqrt(weight / (1.0 + x))[client], (client, shard)), shape=shape)
    diagonal = np.bincount(shard, weight[client], n_shards) / d
    # Scaled by the square roots of the diagonal, energies that span many orders do not cost digits.
    scale = 1.0 / np.sqrt(diagonal)
    scaled = slope * scale[None, :]
    system = sparse.csc_array(sparse.eye_array(n_shards) - scaled.T @ scaled)
    try:
        solver = splu(system)
    except RuntimeError:  # singular to the last digit: the caller has a second choice
        return np.zeros(client.size)
    wanted = scale.copy()
    inner = solver.solve(wanted)
    inner += solver.solve(wanted - system @ inner)
    multiplier = scale * inner

    along = np.bincount(client, (r / d * multiplier)[shard], n_clients) / (1.0 + x)
    coefficients: Vector = weight[client] * ((multiplier / d)[shard] - (r / d)[shard] * along[client])
    return coefficients


def _by_cvxpy(
    shape: tuple[int, int], client: NDArray[np.intp], shard: NDArray[np.intp], delta: Vector, gram: GramModel
) -> Vector:
    """Return the coefficient of each copy from an interior-point solver."""
    # Only here: importing it takes a second that nobody else should pay.
    import cvxpy  # noqa: PLC0415

    cp: Any = cvxpy  # its operators are not typed

    n_clients, n_shards = shape
    copy = np.arange(client.size)
    a = cp.Variable(client.size)
    root = np.sqrt(delta)[client]
    along = sparse.csr_array((root * gram.coherent[shard], (client, copy)), shape=(n_clients, client.size))
    apart = cp.multiply(root * np.sqrt(gram.incoherent[shard]), a)
    columns = sparse.csr_array((np.ones(client.size), (shard, copy)), shape=(n_shards, client.size))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(apart) + cp.sum_squares(along @ a)), [columns @ a == 1])
    problem.solve(solver=cp.CLARABEL)
    if a.value is None:
        raise ValueError(f"gram must be within the reach of solver 'cvxpy'; got status {problem.status}")
    return np.asarray(a.value, dtype=np.float64)
