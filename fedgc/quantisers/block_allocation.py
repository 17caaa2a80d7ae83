"""A budget of bits divided over blocks of clients that send the same sum, and over the clients of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.quantisers.bit_allocation import Ints, allocate_bits, most_of_budget, worth_of_bits

Vector = NDArray[np.float64]


def allocate_bits_to_blocks(
    straggle_prob: ArrayLike,
    variance_factor: ArrayLike,
    budget: int,
    *,
    block_of_client: NDArray[np.intp],
    energy: Vector,
) -> Ints:
    """Return the bits of each client, (n_clients,), of a budget for all blocks: each block is a star of its own.

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability in [0, 1) that each client misses the deadline.
    variance_factor : array_like, shape (n_bits,)
        ``omega(b)`` for b = 0, 1, ... bits, see :func:`fedgc.quantisers.allocate_bits`.
    budget : int
        Bits per entry over all clients. More than all can take stay over.
    block_of_client : ndarray of int, shape (n_clients,)
        The block of each client.
    energy : ndarray, shape (n_blocks,)
        Squared length of what the clients of each block send.

    Raises
    ------
    ValueError
        If the budget is too small for a client of every block to send.

    Notes
    -----
    With weights that are settled before the round, a block of energy e has the variance ``e / V`` for the best
    ``V = sum_i q_i / (p_i + omega(b_i))`` over its clients. How many bits each block gets is what has the least sum of
    these, by dynamic programming; within a block they are divided as by :func:`fedgc.quantisers.allocate_bits`.

    Examples
    --------
    >>> omega = np.concatenate([[np.inf], 4.0 ** -np.arange(1, 9)])
    >>> blocks = {"block_of_client": np.array([0, 0, 0, 1]), "energy": np.ones(2)}
    >>> allocate_bits_to_blocks([0.1, 0.1, 0.9, 0.2], omega, 8, **blocks).tolist()
    [3, 2, 0, 3]
    """
    prob, omega = np.asarray(straggle_prob, dtype=np.float64), np.asarray(variance_factor, dtype=np.float64)
    each = omega.size - 1
    budget = min(budget, each * prob.size)
    least = int(np.argmax(np.isfinite(omega)))
    if budget < least * energy.size:
        raise ValueError(
            f"bit_budget must be at least {least * energy.size}, for a client of each of {energy.size} blocks to send; "
            f"got {budget}"
        )
    members = [np.flatnonzero(block_of_client == block) for block in range(energy.size)]
    shares = np.array([budget])
    if energy.size > 1:
        gain = []
        for own, e in zip(members, energy.tolist(), strict=True):
            # What is left for the others must do for them.
            most = min(each * own.size, budget - least * (energy.size - 1))
            worth, _ = worth_of_bits(prob[own], omega, most)
            _, values = most_of_budget(worth, most)
            gain.append(np.where(values > 0.0, -e / np.where(values > 0.0, values, 1.0), -np.inf))
        shares, _ = most_of_budget(gain, budget)
    bits = np.zeros(prob.size, dtype=np.intp)
    for own, share in zip(members, shares.tolist(), strict=True):
        bits[own] = allocate_bits(prob[own], omega, share).bits
    return bits
