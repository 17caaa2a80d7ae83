"""Exact calibration of the optimal decoder where blocks arrive whole or not at all: for millions of blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve

from fedgc.calibration.quadrature import exponential_nodes
from fedgc.gram import GramModel

Vector = NDArray[np.float64]
T = TypeVar("T")

# Blocks per chunk, so that its dozen temporaries stay in the megabytes; entries kept in all, 1 GB for each factor.
_CHUNK = 8192
_KEPT = 13 * 10**7
_REFINEMENTS = 6


def calibrate_whole_blocks(missing: Vector, arriving: Vector, gram: GramModel) -> tuple[Vector, float]:
    """Return ``t - 1`` for the target t with ``E[v] = 1``, and a bound of the bias that rounding leaves.

    Parameters
    ----------
    missing, arriving : ndarray, shape (n_blocks,)
        Probability that no member of the block arrives, and that one does. They sum to one; both are given since the
        difference of the other to one loses digits where it is small.
    gram : GramModel
        Gram model of the n_blocks block updates.

    Notes
    -----
    The case of :func:`fedgc.calibration.states.calibrate_states` with two states per block, for which it is
    scalar arithmetic: with q = `arriving`, p = `missing`, ``x_g = r_g^2 / d_g`` and ``phi_g = p_g + q_g e^(-u x_g)``,

        M_gg = q_g,    M_gh = integral of e^-u Phi a_g b_h du,
        a_g = (r_g / d_g) q_g e^(-u x_g) / phi_g,    b_g = r_g p_g / phi_g.

    K nodes make M a diagonal plus rank K; t follows from the Woodbury identity in O(n_blocks K^2), refined until the
    remainder no longer falls.
    """
    factors = _Factors(missing, arriving, gram)
    through = np.concatenate([np.einsum("gk,gk->g", a, b) for a, b in factors])
    diagonal = arriving - through
    small = np.eye(factors.n_nodes)
    for rows, (a, b) in zip(factors.slices, factors, strict=True):
        small += b.T @ (a / diagonal[rows, None])
    factorised = lu_factor(small)

    def solve(rhs: Vector) -> Vector:
        scaled = rhs / diagonal
        inner = lu_solve(factorised, factors.right_times(scaled))
        solution: Vector = scaled - factors.left_times(inner) / diagonal
        return solution

    ones = np.ones(missing.size)
    wanted = missing - (factors.left_times(factors.right_times(ones)) - through)
    excess, remainder, best = np.zeros(missing.size), wanted, np.inf
    for _ in range(_REFINEMENTS):
        tried = excess + solve(remainder)
        left = wanted - diagonal * tried - factors.left_times(factors.right_times(tried))
        worst = float(np.abs(left).max())
        if not worst < best:
            break
        excess, remainder, best = tried, left, worst
        if worst < 4.0 * float(np.finfo(np.float64).eps):
            break
    size = np.abs(1.0 + excess)
    terms = float((arriving * size + factors.left_times(factors.right_times(size))).max())
    # E[(1 + X) / (1 + X)] = 1 tells how good the nodes are.
    rounding = 2.0 * best + (abs(factors.identity - 1.0) + 2.0 * float(np.finfo(np.float64).eps)) * terms
    return excess, rounding if np.isfinite(rounding) else np.inf


class _Factors:
    """The factors of M = diagonal + left right', a chunk of blocks at a time.

    Up to `_KEPT` entries the chunks are kept; beyond they are computed anew in each pass.
    """

    def __init__(self, missing: Vector, arriving: Vector, gram: GramModel) -> None:
        self._p, self._q, self._d, self._r = missing, arriving, gram.incoherent, gram.coherent
        n_blocks = missing.size
        self.slices = [slice(start, start + _CHUNK) for start in range(0, n_blocks, _CHUNK)]
        self._x = self._r**2 / self._d
        self._s, weight = exponential_nodes(float(self._x.sum()))
        self.n_nodes = self._s.size
        log_phi = sum(self._parallel(self._log_phi))
        node_weight = weight * np.exp(log_phi - self._s)
        self._root = np.sqrt(node_weight)
        self._kept = self._parallel(self._chunk) if n_blocks * self.n_nodes <= _KEPT else None
        mean_x = np.zeros(self.n_nodes)
        for rows, (left, _) in zip(self.slices, self, strict=True):
            mean_x += self._r[rows] @ left
        self.identity = float(node_weight.sum() + self._root @ mean_x)

    def __iter__(self) -> Iterator[tuple[Vector, Vector]]:
        """Yield left and right of each chunk."""
        return iter(self._kept) if self._kept is not None else map(self._chunk, self.slices)

    def right_times(self, vector: Vector) -> Vector:
        """Return ``right' vector``, (n_nodes,)."""
        total = np.zeros(self.n_nodes)
        for rows, (_, right) in zip(self.slices, self, strict=True):
            total += vector[rows] @ right
        return total

    def left_times(self, vector: Vector) -> Vector:
        """Return ``left vector``, (n_blocks,)."""
        return np.concatenate([left @ vector for left, _ in self])

    def _parallel(self, function: Callable[[slice], T]) -> list[T]:
        """Map over the chunks on all processors, results in order: elementwise numpy leaves the interpreter free."""
        if len(self.slices) == 1:
            return [function(self.slices[0])]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(function, self.slices))

    def _log_phi(self, rows: slice) -> Vector:
        # A block that never straggles and has a large x may reach log 0: it then rules the node out, rightly.
        with np.errstate(divide="ignore"):
            drop = self._q[rows, None] * np.expm1(-np.outer(self._x[rows], self._s))
            total: Vector = np.log1p(np.maximum(drop, -1.0), out=drop).sum(axis=0)
        return total

    def _chunk(self, rows: slice) -> tuple[Vector, Vector]:
        p, q, r = self._p[rows, None], self._q[rows, None], self._r[rows, None]
        come = np.outer(-self._x[rows], self._s)
        np.exp(come, out=come)
        come *= q
        # A block with p = 0 and a large x has q e^(-s x) near underflow where it does not count any more: the share is
        # one there.
        phi = come + p
        empty = phi == 0.0
        if empty.any():
            come[empty], phi[empty] = 1.0, 1.0
        scale = self._root / phi
        come *= scale
        come *= r / self._d[rows, None]
        scale *= r * p
        return come, scale
