"""Exact calibration of the optimal decoder: the target t that makes whole-block decoding unbiased."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve

from fedgc.gram import GramModel

Vector = NDArray[np.float64]

NODES = 192  # 128 leave a bias of 6e-12 where r^2 / d reaches 1e14; 192 leave what rounding leaves

# Blocks per chunk, so that its dozen temporaries stay in the megabytes; entries kept in all, 0.3 GB for each factor.
_CHUNK = 8192
_KEPT = 4 * 10**7


def calibrate_blocks(missing_prob: Vector, gram: GramModel) -> Vector:
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
    factors = _Factors(missing_prob, gram)
    diagonal = np.concatenate([q - np.einsum("gk,gk->g", a, b) for q, a, b in factors])
    small = np.eye(NODES)
    for rows, (_, a, b) in zip(factors.slices, factors, strict=True):
        small += b.T @ (a / diagonal[rows, None])
    factorised = lu_factor(small)

    def solve(rhs: Vector) -> Vector:
        scaled = rhs / diagonal
        inner = lu_solve(factorised, factors.right_times(scaled))
        solution: Vector = scaled - factors.left_times(inner) / diagonal
        return solution

    ones = np.ones(missing_prob.size)
    t = solve(ones)
    # One step of iterative refinement: the remainder is that of the matrix itself, not of its factors.
    return t + solve(ones - diagonal * t - factors.left_times(factors.right_times(t)))


class _Factors:
    """The factors of M = diagonal + left right', a chunk of blocks at a time.

    A million blocks at 192 nodes would take gigabytes at once; up to `_KEPT` entries the chunks are kept, beyond they
    are computed anew in each of the five passes.
    """

    def __init__(self, missing_prob: Vector, gram: GramModel) -> None:
        self._p, self._d, self._r = missing_prob, gram.incoherent, gram.coherent
        n_blocks = missing_prob.size
        self.slices = [slice(start, start + _CHUNK) for start in range(0, n_blocks, _CHUNK)]
        x = self._r**2 / self._d
        scale = 1.0 + float((1.0 - missing_prob) @ x)
        u = np.linspace(-5.0, np.log(80.0 * scale) + 1.0, NODES)
        self._s = np.exp(u - np.exp(-u)) / scale
        step = (u[1] - u[0]) * self._s * (1.0 + np.exp(-u))
        log_phi = np.zeros(NODES)
        for rows in self.slices:
            p = missing_prob[rows, None]
            # A block that never straggles and has a large x may reach log 0: it then rules the node out, rightly.
            with np.errstate(divide="ignore"):
                log_phi += np.log1p((1.0 - p) * np.expm1(-np.outer(x[rows], self._s))).sum(axis=0)
        self._root_weight = np.sqrt(step * np.exp(log_phi - self._s))
        self._kept = [self._chunk(rows) for rows in self.slices] if n_blocks * NODES <= _KEPT else None

    def __iter__(self) -> Iterator[tuple[Vector, Vector, Vector]]:
        """Yield q, left and right of each chunk."""
        return iter(self._kept) if self._kept is not None else map(self._chunk, self.slices)

    def right_times(self, vector: Vector) -> Vector:
        """Return ``right' vector``, (NODES,)."""
        total = np.zeros(NODES)
        for rows, (_, _, right) in zip(self.slices, self, strict=True):
            total += right.T @ vector[rows]
        return total

    def left_times(self, vector: Vector) -> Vector:
        """Return ``left vector``, (n_blocks,)."""
        return np.concatenate([left @ vector for _, left, _ in self])

    def _chunk(self, rows: slice) -> tuple[Vector, Vector, Vector]:
        p, d, r = self._p[rows], self._d[rows], self._r[rows]
        q = 1.0 - p
        fade = np.exp(-np.outer(r**2 / d, self._s))  # e^(-s x)
        phi = p[:, None] + q[:, None] * fade
        # A block with p = 0 and a large x has phi = e^(-s x) near underflow where it does not count any more: the
        # quotient is 1 / q there, and b is zero.
        with np.errstate(divide="ignore", invalid="ignore"):
            a = np.where(phi > 0, (r / d * q)[:, None] * fade / phi, (r / d)[:, None])
            b = np.where(p[:, None] > 0, (r * p)[:, None] / phi, 0.0)
        return q, a * self._root_weight, b * self._root_weight
