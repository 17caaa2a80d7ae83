"""Exact calibration of the optimal decoder for quantised messages, each rounded on its own, of blocks of equal rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve

from fedgc.calibration.quadrature import exponential_nodes
from fedgc.gram import GramModel

Vector = NDArray[np.float64]

#: Most states of a block.
MOST_STATES = 2**16
#: Sums of inverse noise that agree to so many digits are one state: equal members make few states of many.
_DIGITS = 12
_REFINEMENTS = 3


class NoiseStates(NamedTuple):
    """The states of all blocks in which something of the block has come.

    Attributes
    ----------
    block : ndarray of int, shape (n_states,)
        The block of each state.
    probability : ndarray, shape (n_states,)
        How likely the state is; what is left to one is that nothing of the block comes.
    noise : ndarray, shape (n_states,)
        Energy that rounding leaves in the mean of what came, weighed by inverse variance.
    """

    block: NDArray[np.intp]
    probability: Vector
    noise: Vector


def noise_states(block_of_row: NDArray[np.intp], straggle_prob: Vector, noise: Vector, n_blocks: int) -> NoiseStates:
    """Return the states of blocks whose rows come independently.

    Parameters
    ----------
    block_of_row : ndarray of int, shape (n_rows,)
        The block of each row.
    straggle_prob : ndarray, shape (n_rows,)
        Probability that the row does not come.
    noise : ndarray, shape (n_rows,)
        Energy ``omega_i e_i`` of each row's rounding, above zero; infinite for rows that are not sent.
    n_blocks : int
        Number of blocks.

    Raises
    ------
    ValueError
        If a block has more states than can be listed.
    """
    found = []
    for block in range(n_blocks):
        rows = np.flatnonzero((block_of_row == block) & np.isfinite(noise))
        scale = float((1.0 / noise[rows]).sum()) if rows.size else 1.0
        # One over the noise, as a share of that with all rows, and how likely it is.
        inverse: Vector = np.zeros(1)
        probability: Vector = np.ones(1)
        for row in rows:
            more = np.concatenate([inverse, inverse + 1.0 / (noise[row] * scale)])
            chance = np.concatenate([probability * straggle_prob[row], probability * (1.0 - straggle_prob[row])])
            _, first, same = np.unique(more.round(_DIGITS), return_index=True, return_inverse=True)
            inverse, probability = more[first], np.bincount(same.ravel(), chance).astype(np.float64)
            if inverse.size > MOST_STATES:
                raise ValueError(
                    f"variance_factor must be such that a block has at most {MOST_STATES} states, as where it is the "
                    f"same for its {rows.size} members; got more in block {block}"
                )
        come = inverse > 0.0
        found.append((np.full(int(come.sum()), block), probability[come], 1.0 / (inverse[come] * scale)))
    of, chances, left = (np.concatenate(part) for part in zip(*found, strict=True))
    return NoiseStates(of.astype(np.intp), chances, left)


def calibrate_quantised_blocks(states: NoiseStates, gram: GramModel) -> tuple[Vector, float]:
    """Return the multipliers mu of the optimal weights, and a bound of the bias that rounding of numbers leaves.

    Parameters
    ----------
    states : NoiseStates
        The states of the blocks.
    gram : GramModel
        Gram model of the n_blocks block updates.

    Notes
    -----
    Let W_g be the weight of block g as a whole and N_g the noise of its messages together. Among members that came,
    ``sum_i w_i^2 n_i`` is least for ``sum_i w_i = W_g`` where w_i is in proportion to ``1 / n_i``, and is then
    ``W_g^2 N_g`` with ``N_g = 1 / sum_i (1 / n_i)``: inverse variance weighting, in which G has no part, since all
    members carry the same. What remains is, over W that are zero where nothing came and have the mean one,

        min E[(W - 1)' G (W - 1)] + E[sum_g W_g^2 N_g].

    With multipliers for the means, the stationarity condition in each state is, on the blocks that came,
    ``(G + N) W = mu`` with one mu for all states, so that for ``G = diag(d) + r r'`` and ``e_g = d_g + N_g``

        W_g = (mu_g - r_g C) / e_g,    C = sum of r_h mu_h / e_h  /  (1 + sum of r_h^2 / e_h)

    over the blocks h that came. For r = 0, ``W_g = mu_g / (d_g + N_g)`` with ``mu_g = 1 / E[1{came} / (d_g + N_g)]``:
    a block of which more copies came is less noisy, and counts more.

    The means of W are M mu = 1 with ``M = E[(G + N)^-1]`` on what came. Over independent blocks, with
    ``x_g = r_g^2 / e_g`` and ``phi_g(u) = E[e^(-u x_g)]``, where x_g is zero if nothing came, this is

        M_gh = - integral of e^-u Phi a_g a_h du,    a_g = E[1{came} (r_g / e_g) e^(-u x_g)] / phi_g,
        M_gg = E[1{came} / e_g] - integral of e^-u Phi E[1{came} (r_g / e_g)^2 e^(-u x_g)] / phi_g du,

    Phi the product of all phi_g: a diagonal less a product of rank K for K nodes. The least value is
    ``sum_g mu_g - 1' G 1``, since ``W' (G + N) W = mu' W`` in each state.
    """
    n_blocks, of = gram.incoherent.size, states.block
    d, r = gram.incoherent[of], gram.coherent[of]
    energy = d + states.noise
    x = r**2 / energy
    largest = np.zeros(n_blocks)
    np.maximum.at(largest, of, x)
    s, weight = exponential_nodes(float(largest.sum()))
    missing = np.maximum(1.0 - np.bincount(of, states.probability, n_blocks), 0.0)
    base = np.bincount(of, states.probability / energy, n_blocks)
    phi, first, second = np.empty((3, s.size, n_blocks))
    for node, at in enumerate(s):
        come = states.probability * np.exp(-at * x)
        phi[node] = missing + np.bincount(of, come, n_blocks)
        first[node] = np.bincount(of, come * r / energy, n_blocks)
        second[node] = np.bincount(of, come * x / energy, n_blocks)
    # A block that always comes may have phi near underflow at nodes that do not count any more.
    empty = phi == 0.0
    with np.errstate(divide="ignore"):
        node_weight = weight * np.exp(np.log(phi).sum(axis=1) - s)
    phi[empty], first[empty], second[empty] = 1.0, 0.0, 0.0
    left = np.sqrt(node_weight)[:, None] * first / phi
    within = node_weight @ (second / phi)
    diagonal = base - within + (left**2).sum(axis=0)
    identity = float(node_weight.sum() + node_weight @ ((first / phi) @ gram.coherent))

    small = lu_factor(np.eye(s.size) - (left / diagonal) @ left.T)

    def solve(rhs: Vector) -> Vector:
        solution: Vector = (rhs + left.T @ lu_solve(small, left @ (rhs / diagonal))) / diagonal
        return solution

    mu, best = solve(np.ones(n_blocks)), np.inf
    for _ in range(_REFINEMENTS):
        remainder = 1.0 - (diagonal * mu - left.T @ (left @ mu))
        worst = float(np.abs(remainder).max())
        if not worst < best:
            break
        best, kept = worst, mu
        mu = mu + solve(remainder)
    terms = float(np.abs(base * kept).max())
    return kept, best + (abs(identity - 1.0) + 4.0 * float(np.finfo(np.float64).eps)) * terms
