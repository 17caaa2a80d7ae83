"""Cost of work lists by speed: what a search asks for again and again, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.work_list_order import block_cost, shares_by_speed

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]


def cost_by_speed(miss: Floats, members: Ints, sizes: Ints, speed: Floats, limit: Ints) -> Floats:
    """Return the cost of each block whose members hold shares by speed and help "ahead first", (n_blocks,).

    Parameters
    ----------
    miss : ndarray, shape (n_clients + 1, K + 2)
        Probability that each client has not done k shards; the last row, ones, stands for an empty slot.
    members : ndarray of int, shape (n_blocks, n_slots)
        Members, padded with n_clients.
    sizes : ndarray of int, shape (n_blocks,)
        Shards in each block.
    speed, limit : ndarray, shape (n_clients + 1,)
        Expected progress of each client, and most shards in its list; 0 for an empty slot.

    Notes
    -----
    It is the cost of :func:`fedgc.assignment.work_list_order.visiting_turns`, where everyone goes the same way round a
    circle. With the shares put in the order of the circle and E their running sums, shard k of share s is at position
    ``E[s] - E[m - 1] - k + 1`` of the list of any other member m, plus the block's size where s comes before m.

    Examples
    --------
    >>> miss = np.array([[0.0, 0.1, 0.5, 1.0], [0.0, 0.2, 0.6, 1.0], [1.0, 1.0, 1.0, 1.0]])
    >>> cost = cost_by_speed(miss, np.array([[0, 1]]), np.array([2]), np.array([1.4, 1.2, 0.0]), np.array([2, 2, 0]))
    >>> cost.round(4).tolist()  # missed with 0.1 x 0.6 and 0.5 x 0.2: 0.08 in the mean
    [0.1739]
    """
    n_blocks, n_slots = members.shape
    own = speed.take(members)
    shares = shares_by_speed(sizes, own, np.minimum(limit.take(members), sizes[:, None]))
    backlog = np.where(members < miss.shape[0] - 1, shares / np.maximum(own, 1e-9), -1.0)
    circle = np.argsort(-backlog, axis=1, kind="stable")
    # A search asks for a few hundred blocks a thousand times, and take_along_axis would cost as much as the sorting.
    circle += n_slots * np.arange(n_blocks)[:, None]
    members, shares = members.take(circle), shares.take(circle)
    end = np.cumsum(shares, axis=1)
    flat = shares.ravel()
    slot = np.repeat(np.arange(flat.size), flat)
    block, owner = np.divmod(slot, n_slots)
    place = np.arange(1, slot.size + 1) - (np.cumsum(flat) - flat).take(slot)
    above = end[:, None, :] - (end - shares)[:, :, None] + 1
    above += np.tri(n_slots, k=-1, dtype=np.intp) * end[:, -1:, None]
    position = above.transpose(1, 0, 2).reshape(n_slots, -1).take(slot, axis=1)
    position -= place
    position[owner, np.arange(slot.size)] = place
    return block_cost(miss, members, block, position)
