"""How many bits each client gets of a budget, so that quantised updates that straggle have the least variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.quantisers.base import MOST_BITS
from fedgc.validation import check_integer, check_straggle_prob

Vector = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class BitAllocation:
    """Bits per client, and what they are worth.

    Attributes
    ----------
    bits : ndarray of int, shape (n_clients,)
        Bits per entry of each client's update.
    objective : float
        ``sum_i q_i / (p_i + omega(b_i))``, the inverse of the variance of the star code that goes with it.
    """

    bits: Ints
    objective: float


def allocate_bits(straggle_prob: ArrayLike, variance_factor: ArrayLike, budget: int) -> BitAllocation:
    """Divide a budget of bits among the clients, by prefixes of their order where one quantiser serves all.

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability in [0, 1) that each client misses the deadline.
    variance_factor : array_like, shape (n_bits,) or (n_clients, n_bits)
        ``omega(b)`` for b = 0, 1, ... up to 16 bits, as measured; infinite for numbers of bits that send nothing. With
        a row for each client, or factors of which the prefixes know nothing (see the notes), the division is that of
        :func:`allocate_bits_exactly`.
    budget : int
        Bits per entry to divide, over all clients together: at least what one of them needs to send, at most what all
        of them can take, the most bits that factors are given for times the clients. Bits that gain nothing stay over.

    Raises
    ------
    ValueError
        If there is no client; if the factors are for more than 16 bits, not positive, or NaN; if the budget is more
        than all clients can take, or too small for any of them to send.

    Notes
    -----
    Prefixes take it that what a client is worth, ``q / (p + omega(b))``, never falls, and is an S in its bits: each of
    the first ones buys at least as much as the one before, up to a number of bits where the gain is greatest, and from
    there on each buys at most as much. So clients are sorted by p, and for every k the first k have at least so many
    bits, and what is left of the budget by the multiplier: every bit that gains more. One more client may have any few
    bits, since one of them can be on the S's lower half in the optimum. The best k is then improved by moving single
    bits.

    The S is no law: ``omega = c 4^-b`` has it, and vectors whose entries lie anywhere between the grid points have it
    nearly always. Vectors that are nearly on a grid do not, since one more bit may then cost more than it gains, nor do
    factors of which some have been measured more often than others. So the second differences of every client's worth
    are looked at: where one is above zero after another was below it, or a bit makes a client worth less, the division
    is the dynamic programme's, which assumes nothing.

    The paper's own method is :func:`fedgc.quantisers.allocate_bits_by_bisection`, which has the prefixes by p and the
    moves of single bits in common with this one. There omega is a formula of real bits, the multiplier of each prefix
    is found by bisection, its real solution rounded down, and the rest handed out. Here omega is measured, on whole
    bits alone: the multiplier is found among the gains themselves, which is where bisection ends, and there is nothing
    to round. The one more client is not in the paper.

    Where factors differ between clients, none of this holds: who is worth most with all bits may be worth least with
    few, and no order has the optimum among its prefixes.

    References
    ----------
    H. Song, J. Choi, arXiv 2605.15890.

    Examples
    --------
    >>> omega = np.concatenate([[np.inf], 4.0 ** -np.arange(1, 9)])
    >>> allocate_bits([0.1, 0.1, 0.9], omega, 6).bits.tolist()
    [3, 3, 0]
    """
    if np.ndim(variance_factor) == 2:
        return allocate_bits_exactly(straggle_prob, variance_factor, budget)
    worth, prob = worth_of_bits(straggle_prob, variance_factor, budget)
    if not _is_s_shaped(worth):
        bits, _ = most_of_budget(worth, budget)
        return BitAllocation(bits, worth_in_all(worth, bits))
    gain = np.diff(worth, axis=1)
    start = np.argmax(gain, axis=1) + 1
    later = np.arange(1, worth.shape[1]) > start[:, None]
    # Rounding of floats may leave these not quite in order; the bits of a client go in order all the same.
    ordered = np.minimum.accumulate(np.where(later, gain, np.inf), axis=1)
    best, clients = np.zeros(prob.size, dtype=np.intp), np.argsort(prob, kind="stable")
    most = -np.inf
    for k in range(prob.size + 1):
        first, spare = clients[:k], budget - int(start[clients[:k]].sum())
        if spare < 0:
            break
        client, bit = np.nonzero(later[first])
        gains = ordered[first][client, bit]
        by_gain = np.argsort(-gains, kind="stable")
        total = np.concatenate([[0.0], np.cumsum(gains[by_gain])]) + worth[first, start[first]].sum()
        # The next client's bits, and how many are then left for the first ones.
        own = worth[clients[k]] if k < prob.size else np.zeros(1)
        few = np.arange(min(own.size, spare + 1))
        values = own[few] + total[np.minimum(spare - few, gains.size)]
        if values.max() > most:
            most, chosen = values.max(), int(np.argmax(values))
            best = np.zeros(prob.size, dtype=np.intp)
            best[first] = start[first] + np.bincount(client[by_gain[: spare - chosen]], minlength=k)
            if k < prob.size:
                best[clients[k]] = chosen
    move_single_bits(worth, best)
    return BitAllocation(best, worth_in_all(worth, best))


def allocate_bits_exactly(straggle_prob: ArrayLike, variance_factor: ArrayLike, budget: int) -> BitAllocation:
    """Return the best division of the budget, by dynamic programming in O(n_clients budget n_bits).

    See :func:`allocate_bits` for the parameters and errors.

    Examples
    --------
    >>> omega = np.concatenate([[np.inf], 4.0 ** -np.arange(1, 9)])
    >>> allocate_bits_exactly([0.1, 0.1, 0.9], omega, 6).bits.tolist()
    [3, 3, 0]
    """
    worth, _ = worth_of_bits(straggle_prob, variance_factor, budget)
    bits, _ = most_of_budget(worth, budget)
    return BitAllocation(bits, worth_in_all(worth, bits))


def most_of_budget(worth: Sequence[Vector] | Vector, budget: int) -> tuple[Ints, Vector]:
    """Return the division of a budget whose worth is most in all, and the most for each smaller budget.

    Parameters
    ----------
    worth : sequence of ndarray, each of shape (n_bits,)
        What each is worth with 0, 1, ... bits.
    budget : int
        Bits to divide.

    Returns
    -------
    bits : ndarray of int, shape (n,)
        Bits of each.
    values : ndarray, shape (budget + 1,)
        The most for 0 up to `budget` bits.

    Examples
    --------
    >>> most_of_budget(np.array([[0.0, 2.0, 3.0], [0.0, 1.0, 4.0]]), 3)
    (array([1, 2]), array([0., 2., 4., 6.]))
    """
    best, chosen = np.zeros(budget + 1), np.zeros((len(worth), budget + 1), dtype=np.int32)
    for client, own in enumerate(worth):
        # [b, t]: b bits for this client and t in all.
        tried = np.full((own.size, budget + 1), -np.inf)
        for b in range(min(own.size, budget + 1)):
            tried[b, b:] = own[b] + best[: budget + 1 - b]
        chosen[client] = tried.argmax(axis=0)
        best = tried.max(axis=0)
    bits, left = np.zeros(len(worth), dtype=np.intp), budget
    for client in reversed(range(len(worth))):
        bits[client] = int(chosen[client, left])
        left -= int(bits[client])
    return bits, best


def equal_bits(straggle_prob: ArrayLike, variance_factor: ArrayLike, budget: int) -> BitAllocation:
    """Return the equal split, to compare with: the most reliable clients have the bits that are left over.

    Examples
    --------
    >>> omega = np.concatenate([[np.inf], 4.0 ** -np.arange(1, 9)])
    >>> equal_bits([0.1, 0.2, 0.9], omega, 7).bits.tolist()
    [3, 2, 2]
    """
    worth, prob = worth_of_bits(straggle_prob, variance_factor, budget)
    bits = np.full(prob.size, budget // prob.size, dtype=np.intp)
    bits[np.argsort(prob, kind="stable")[: budget % prob.size]] += 1
    return BitAllocation(bits, worth_in_all(worth, bits))


def worth_of_bits(straggle_prob: ArrayLike, variance_factor: ArrayLike, budget: int) -> tuple[Vector, Vector]:
    """Return ``q / (p + omega)`` by client and bits, and p; see :func:`allocate_bits` for parameters and errors."""
    prob = check_straggle_prob(straggle_prob, np.size(np.asarray(straggle_prob)))
    if prob.size == 0:
        raise ValueError("straggle_prob must be that of at least one client; got none")
    omega = np.asarray(variance_factor, dtype=np.float64)
    if omega.ndim not in {1, 2} or (omega.ndim == 2 and omega.shape[0] != prob.size):
        raise ValueError(f"variance_factor must have a row, or one per client ({prob.size}); got shape {omega.shape}")
    if not 1 <= omega.shape[-1] <= MOST_BITS + 1:
        raise ValueError(f"variance_factor must be for 0 to at most {MOST_BITS} bits; got {omega.shape[-1]} of them")
    if not (omega > 0.0).all():
        raise ValueError(f"variance_factor must be above 0; got {omega[~(omega > 0.0)][0]:g}")
    worth: Vector = (1.0 - prob[:, None]) / (prob[:, None] + np.broadcast_to(omega, (prob.size, omega.shape[-1])))
    most, sending = prob.size * (omega.shape[-1] - 1), np.argmax(worth > 0.0, axis=1)[worth.any(axis=1)]
    if sending.size == 0:
        raise ValueError("variance_factor must be finite for some number of bits; got infinity for all")
    check_integer("budget", budget, low=int(sending.min()), high=most)
    return worth, prob


def _is_s_shaped(worth: Vector) -> bool:
    """Whether no bit makes a client worth less, and its gains first rise and then fall, by more than float error."""
    gain, slack = np.diff(worth, axis=1), 1e-12 * worth.max()
    bend = np.diff(gain, axis=1)
    bent_down = np.logical_or.accumulate(bend < -slack, axis=1)
    return not ((gain < -slack).any() or (bent_down & (bend > slack)).any())


def move_single_bits(worth: Vector, bits: Ints) -> None:
    """Move a bit from who loses least by it to who gains most, as long as that pays, in place."""
    clients = np.arange(bits.size)
    while True:
        gain, loss = gains_of_a_bit(worth, bits), np.full(bits.size, np.inf)
        has = bits > 0
        loss[has] = (worth[clients, bits] - worth[clients, bits - 1])[has]
        # Who gains most and who loses least may be the same, so that the second of each counts too.
        pairs = [(to, give) for to in np.argsort(-gain)[:2] for give in np.argsort(loss)[:2] if to != give]
        to, give = max(pairs, key=lambda pair: gain[pair[0]] - loss[pair[1]], default=(0, 0))
        if to == give or not gain[to] - loss[give] > 1e-12 * worth.max():
            return
        bits[to] += 1
        bits[give] -= 1


def gains_of_a_bit(worth: Vector, bits: Ints) -> Vector:
    """Return what one more bit would bring each client, minus infinity where there is none."""
    more = np.minimum(bits + 1, worth.shape[1] - 1)
    clients = np.arange(bits.size)
    gains: Vector = np.where(bits + 1 < worth.shape[1], worth[clients, more] - worth[clients, bits], -np.inf)
    return gains


def worth_in_all(worth: Vector, bits: Ints) -> float:
    """Return what all clients together are worth with these bits."""
    return float(worth[np.arange(bits.size), bits].sum())
