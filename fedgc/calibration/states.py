"""Exact calibration of the optimal decoder for blocks with any number of states, by quadrature and one small solve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve

from fedgc.calibration.block_states import Block
from fedgc.calibration.projection import project, project_single
from fedgc.calibration.quadrature import exponential_nodes

Array = NDArray[np.float64]

#: Numbers per chunk of states, so that temporaries stay below a hundred megabytes each.
_CHUNK = 10**7
_REFINEMENTS = 6


@dataclass(frozen=True, eq=False)
class Target:
    """The calibrated target.

    Attributes
    ----------
    excess : list of ndarray, each of shape (m,)
        ``t - 1`` for the super-shards of each block: what a small residual error is made of, to full precision.
    rounding : float
        Bound of the bias that rounding leaves.
    """

    excess: list[Array]
    rounding: float


@dataclass(frozen=True, eq=False)
class _Group:
    """Blocks of one shape, stacked: n blocks, S states, m super-shards, q unknowns."""

    members: NDArray[np.intp]
    probability: Array  # (n, S)
    z: Array  # (n, S, m)
    missed: Array  # (n, S, m)
    x: Array  # (n, S)
    mean_onto: Array  # (n, q, q), E[P] of the unknowns
    lost: Array  # (n, q), E[(I - P) 1]
    basis: Array  # (n, q, m)
    tests: Array  # (n, q, m)


class _Factors:
    """What a group adds to ``M = block diagonal + left right'``, see `calibrate_states`."""

    def __init__(self, group: _Group, s: Array, node_weight: Array) -> None:
        least = group.x.min(axis=1, keepdims=True)
        fade = np.exp(-(group.x - least)[:, :, None] * s)
        weighted = group.probability[:, :, None] * fade
        phi = weighted.sum(axis=1)
        root = np.sqrt(node_weight)
        z = np.einsum("nrm,nsm->nsr", group.tests, group.z)
        missed = np.einsum("nrm,nsm->nsr", group.basis, group.missed)
        share = weighted / phi[:, None, :]
        # Matrix products over the states rather than einsum: a block may have tens of thousands of them.
        across = np.swapaxes(z, 1, 2)
        self.left = across @ share * root
        self.right = np.swapaxes(missed, 1, 2) @ share * root
        weight = (share @ node_weight)[:, None, :]
        self.own = group.mean_onto + (weight * across) @ missed
        self.own_size = np.abs(group.mean_onto) + (weight * np.abs(across)) @ np.abs(missed)
        self.diagonal = self.own - self.left @ np.swapaxes(self.right, 1, 2)
        self.mean_x = np.einsum("nsk,ns->k", share, group.x)


def _log_phi(group: _Group, s: Array) -> Array:
    """Return the sum over the group's blocks of ``log E[exp(-s x)]``, (K,)."""
    least = group.x.min(axis=1, keepdims=True)
    gap = (group.x - least)[:, :, None] * s
    drop = np.einsum("ns,nsk->nk", group.probability, np.expm1(-gap))
    # log1p is exact where phi is near one, the plain logarithm where it is near zero.
    phi = np.where(drop < -0.5, np.einsum("ns,nsk->nk", group.probability, np.exp(-gap)), 1.0)
    log_phi = np.where(drop < -0.5, np.log(phi), np.log1p(np.maximum(drop, -0.5)))
    return np.asarray(log_phi.sum(axis=0) - least.sum() * s, dtype=np.float64)


def calibrate_states(blocks: Sequence[Block]) -> Target:
    """Return the target t with ``E[v] = 1`` for blocks that are independent of each other.

    Parameters
    ----------
    blocks : sequence of Block
        Their states, rows and Gram models.

    Notes
    -----
    In state s of block g let P be the projection onto the received rows in the inner product of D, ``z = P D^-1 r`` and
    ``x = r' z``. By Sherman and Morrison the projection in the inner product of ``G = D + r r'`` is

        v_g = P t_g + z R,    R = sum_h r_h'(I - P_h) t_h / (1 + X),    X = sum_h x_h.

    ``E[v] = 1`` is ``M t = 1``. ``1 / (1 + X)`` is an integral of ``exp(-u (1 + X))`` over u, in which the blocks are
    independent: with ``phi_g = E[e^(-u x_g)]``, ``a_g = E[z e^(-u x)] / phi_g`` and
    ``b_g = E[(I - P)' r e^(-u x)] / phi_g``,

        M_gh = integral of e^-u Phi a_g b_h',    g not h,    Phi = product of all phi,
        M_gg = E[P] + integral of e^-u Phi E[z r'(I - P) e^(-u x)] / phi_g.

    At K nodes M is block diagonal plus rank K. It is solved for ``t - 1`` by the Woodbury identity and then refined,
    until the remainder of the equations themselves, the bias, no longer falls.

    Directions that no state reaches drop out: v and t have them only as the reachable ones dictate. Where shards change
    places at random, t is one number for all of them and the mean of E[v] over their places is to be one: the same
    equations, summed over the places.
    """
    groups = _stack(blocks)
    s, weight = exponential_nodes(sum(float(g.x.max(axis=1).sum()) for g in groups))
    node_weight = weight * np.exp(sum((_log_phi(g, s) for g in groups), start=-s))
    factors = [_Factors(group, s, node_weight) for group in groups]
    try:
        spread_left = [np.linalg.solve(f.diagonal, f.left) for f in factors]
    except np.linalg.LinAlgError:  # some direction is reached too rarely for the numbers to tell
        return Target([np.zeros(block.energy.size) for block in blocks], np.inf)
    small = np.eye(s.size)
    for f, left in zip(factors, spread_left, strict=True):
        small += np.einsum("nrk,nrl->kl", f.right, left, optimize=True)
    factorised = lu_factor(small)

    def total_right(vectors: list[Array], *, size: bool = False) -> Array:
        pairs = zip(factors, vectors, strict=True)
        return np.asarray(sum(np.einsum("nrk,nr->k", np.abs(f.right) if size else f.right, u) for f, u in pairs))

    def solve(rhs: list[Array]) -> list[Array]:
        # Not by inverses: where a direction is rarely reached, they would leave a far larger remainder.
        scaled = [np.linalg.solve(f.diagonal, b[..., None])[..., 0] for f, b in zip(factors, rhs, strict=True)]
        inner = lu_solve(factorised, total_right(scaled))
        return [u - left @ inner for u, left in zip(scaled, spread_left, strict=True)]

    def spread(vectors: list[Array], *, own: bool) -> list[Array]:
        """Return what the vectors weigh through R, without E[P]: M u - E[P] u; M u itself if `own`."""
        total = total_right(vectors)
        result = []
        for f, g, u in zip(factors, groups, vectors, strict=True):
            others = total - np.einsum("nrk,nr->nk", f.right, u)
            matrix = f.own if own else f.own - g.mean_onto
            result.append(np.einsum("nrq,nq->nr", matrix, u) + np.einsum("nrk,nk->nr", f.left, others))
        return result

    ones = [np.ones(g.lost.shape) for g in groups]
    wanted = [g.lost - one for g, one in zip(groups, spread(ones, own=False), strict=True)]
    excess = [np.zeros_like(b) for b in wanted]
    remainder, best = wanted, np.inf
    for _ in range(_REFINEMENTS):
        step = solve(remainder)
        tried = [u + du for u, du in zip(excess, step, strict=True)]
        rest = [b - mu for b, mu in zip(wanted, spread(tried, own=True), strict=True)]
        worst = max(float(np.abs(b).max()) for b in rest)
        if not worst < best:
            break
        excess, remainder, best = tried, rest, worst

    size = [np.abs(1.0 + u) for u in excess]
    reach = total_right(size, size=True)
    terms = max(
        float((np.einsum("nrq,nq->nr", f.own_size, u) + np.einsum("nrk,k->nr", np.abs(f.left), reach)).max())
        for f, u in zip(factors, size, strict=True)
    )
    # E[(1 + X) / (1 + X)] = 1 tells how good the nodes are.
    identity = abs(float(node_weight @ (1.0 + sum(f.mean_x for f in factors))) - 1.0)
    # What is left out would have been decoded with weights of the target's size, times x where R stands in for much.
    largest = (1.0 + sum(float(g.x.max(axis=1).sum()) for g in groups)) * max(float(u.max()) for u in size)
    left_out = sum(block.left_out for block in blocks) * largest
    rounding = 2.0 * best + left_out + (identity + 2.0 * float(np.finfo(np.float64).eps)) * terms
    return Target(_unstack(blocks, groups, excess), rounding if np.isfinite(rounding) else np.inf)


def _stack(blocks: Sequence[Block]) -> list[_Group]:
    by_shape = defaultdict(list)
    for index, block in enumerate(blocks):
        by_shape[(*block.shape, block.single)].append(index)
    groups = []
    for (_, m, n_states, _, single), members in by_shape.items():
        at_once = max(1, _CHUNK // (n_states * m * (1 if single else m)))
        for start in range(0, len(members), at_once):
            chunk = members[start : start + at_once]
            groups.append(_group(np.array(chunk), [blocks[index] for index in chunk]))
    return groups


def _group(members: NDArray[np.intp], blocks: list[Block]) -> _Group:
    probability = np.stack([block.probability for block in blocks])
    energy, coherent = np.stack([block.energy for block in blocks]), np.stack([block.coherent for block in blocks])
    states = np.stack([block.states for block in blocks])
    single = blocks[0].single
    basis, tests = np.stack([block.basis for block in blocks]), np.stack([block.tests for block in blocks])
    n, n_states, m = *probability.shape, energy.shape[1]
    mean_onto, lost = np.zeros((n, m, m)), np.zeros((n, m))
    pieces: list[tuple[Array, Array, Array]] = []
    # Only a block with very many states needs more than one pass.
    at_once = max(1, _CHUNK // (n * m * (1 if single else m)))
    for start in range(0, n_states, at_once):
        part = slice(start, start + at_once)
        if single:
            there = project_single(states[:, part], energy[:, None], coherent[:, None])
            mean_onto[:, range(m), range(m)] += (probability[:, None, part] @ there.onto)[:, 0]
            lost += (probability[:, None, part] @ there.off)[:, 0]
            pieces.append((there.z, there.missed, there.x))
            continue
        rows = _received(np.stack([block.coefficients for block in blocks]), states[:, part])
        shape = (*rows.shape[:2], m)
        there = project(rows, np.broadcast_to(energy[:, None], shape), np.broadcast_to(coherent[:, None], shape))
        mean_onto += np.einsum("ns,nsij->nij", probability[:, part], there.onto)
        lost += np.einsum("ns,nsij->ni", probability[:, part], there.off)
        pieces.append((there.z, there.missed, there.x))
    z, missed, x = (np.concatenate(piece, axis=1) for piece in zip(*pieces, strict=True))
    for place, block in enumerate(blocks):
        if block.marginal is not None:
            # What is known exactly is not left to draws, which may miss a rarely done shard altogether.
            mean_onto[place, range(m), range(m)], lost[place] = block.marginal
    return _Group(
        members=members,
        probability=probability,
        z=z,
        missed=missed,
        x=x,
        mean_onto=tests @ mean_onto @ np.swapaxes(basis, 1, 2),
        lost=np.einsum("nrm,nm->nr", tests, lost),
        basis=basis,
        tests=tests,
    )


def _received(coefficients: Array, states: NDArray[np.bool_]) -> Array:
    """Return the rows that each state has received, (n, n_states, most of them in a state, m); then rows of zeros.

    A client of a work list has a row for every point at which it may be stopped, and one of them at most arrives.
    """
    first = np.argsort(~states, axis=2, kind="stable")[:, :, : max(1, int(states.sum(axis=2).max()))]
    rows: Array = coefficients[np.arange(len(coefficients))[:, None, None], first]
    return np.where(np.take_along_axis(states, first, axis=2)[..., None], rows, 0.0)


def _unstack(blocks: Sequence[Block], groups: list[_Group], excess: list[Array]) -> list[Array]:
    result: list[Array] = [np.zeros(0)] * len(blocks)
    for group, values in zip(groups, excess, strict=True):
        full = np.einsum("nr,nrm->nm", values, group.basis)
        for index, vector in zip(group.members, full, strict=True):
            result[index] = vector
    return result
