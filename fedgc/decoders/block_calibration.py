"""Exact calibration of the optimal decoder: the target t that makes whole-block decoding unbiased."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.gram import GramModel

NODES = 192  # 128 leave a bias of 6e-12 where r^2 / d reaches 1e14; 192 leave what rounding leaves


def calibrate_blocks(missing_prob: NDArray[np.float64], gram: GramModel) -> NDArray[np.float64]:
    """Return the target t with ``E[v] = 1`` for blocks that arrive independently.

    Parameters
    ----------
    missing_prob : ndarray, shape (n_blocks,)
        Probability in [0, 1) that no member of the block arrives.
    gram : GramModel
        Gram model of the n_blocks block updates.

    Returns
    -------
    ndarray, shape (n_blocks,)
        The target; ``1 / (1 - missing_prob)`` if the blocks are incoherent.

    Notes
    -----
    Write p for missing_prob, q = 1 - p, and ``x_g = r_g^2 / d_g``. The weight of block g is linear in t, so the
    condition is ``M t = 1`` with ``M_gg = q_g`` and, for g different from h,

        M_gh = E[ (r_g / d_g) 1{g arrived} r_h 1{h missing} / (1 + X) ],    X = sum over arrived l of x_l.

    The expectation over 2^n_blocks arrival sets collapses to one dimension: ``1 / (1 + X)`` is the integral of
    ``exp(-s (1 + X))`` over s > 0, and for fixed s the blocks are independent factors
    ``phi_g(s) = p_g + q_g exp(-s x_g)``. Hence

        M_gh = integral of e^-s Phi(s) a_g(s) b_h(s) ds,    Phi = product of all phi_g,
        a_g = (r_g / d_g) q_g e^(-s x_g) / phi_g,    b_g = r_g p_g / phi_g.

    Quadrature with K nodes makes M a diagonal plus a matrix of rank K, and t follows from the Woodbury identity in
    O(n_blocks K^2). The nodes are those of the double-exponential rule ``s = exp(u - e^-u) / (1 + E[X])``, which is
    exact to rounding for integrands of this kind however far the x_g are spread.

    Rounding itself grows with the weights, which reach ``1 / (1 - p)`` times ``r^2 / d``: the bias that it leaves is
    below 1e-12 for p up to 0.99 and r^2 / d up to 1e6, and a few 1e-11 for p = 0.9999 and r^2 / d = 1e3.
    """
    p, q = missing_prob, 1.0 - missing_prob
    d, r = gram.incoherent, gram.coherent
    x = r**2 / d
    scale = 1.0 + float(q @ x)

    u = np.linspace(-5.0, np.log(80.0 * scale) + 1.0, NODES)
    s = np.exp(u - np.exp(-u)) / scale
    step = (u[1] - u[0]) * s * (1.0 + np.exp(-u))

    fade = np.exp(-np.outer(x, s))  # e^(-s x), shape (n_blocks, K)
    phi = p[:, None] + q[:, None] * fade
    # A block with p = 0 and a large x has phi = e^(-s x) near underflow where it does not count any more: the
    # quotient is 1 / q there, and b is zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        log_phi = np.log1p(q[:, None] * np.expm1(-np.outer(x, s))).sum(axis=0)
        weight = step * np.exp(log_phi - s)
        a = np.where(phi > 0, (r / d * q)[:, None] * fade / phi, (r / d)[:, None])
        b = np.where(p[:, None] > 0, (r * p)[:, None] / phi, 0.0)

    left, right = a * np.sqrt(weight), b * np.sqrt(weight)
    diagonal = q - np.einsum("gk,gk->g", left, right)
    return _solve_low_rank(diagonal, left, right, np.ones(p.size))


def _solve_low_rank(
    diagonal: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64], rhs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve ``(diag(diagonal) + left right') t = rhs`` by Woodbury with one step of iterative refinement."""
    small = np.eye(left.shape[1]) + right.T @ (left / diagonal[:, None])

    def solve(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = vector / diagonal
        return scaled - (left @ np.linalg.solve(small, right.T @ scaled)) / diagonal

    t = solve(rhs)
    return t + solve(rhs - diagonal * t - left @ (right.T @ t))
