"""Make an assignment of blocks: order their work lists, and predict the residual error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.cost import missing_odds
from fedgc.assignment.instance import Instance
from fedgc.assignment.result import Assignment, Ints
from fedgc.assignment.work_list_order import best_lists, places


def build(instance: Instance, members: Ints, block_of_shard: Ints) -> Assignment:
    """Order the work lists of given blocks and predict the residual error.

    Parameters
    ----------
    instance : Instance
        The instance.
    members : ndarray of int, shape (n_rows, n_slots)
        Members of each block, padded with n_clients; rows without a shard are dropped.
    block_of_shard : ndarray of int, shape (n_shards,)
        Row of each shard.
    """
    n_clients, n_shards = instance.n_clients, instance.n_shards
    rows, block_of_shard = np.unique(block_of_shard, return_inverse=True)
    members = np.sort(members[rows], axis=1)
    sizes = np.bincount(block_of_shard)
    block_of_client = np.full(n_clients + 1, -1, dtype=np.intp)
    block_of_client[members] = np.arange(rows.size)[:, None]
    block_of_client = block_of_client[:-1]
    # Members see the whole block in the full schedule, as if it were their own share.
    if instance.schedule == "full":
        block = np.repeat(np.arange(rows.size), sizes)
        position = np.broadcast_to(sizes[block], (members.shape[1], n_shards))
        turn = np.zeros_like(position)
        rank = np.tile(np.arange(n_shards) - np.repeat(np.cumsum(sizes) - sizes, sizes), (members.shape[1], 1)) + 1
    else:
        shares, turns, _ = best_lists(instance.miss, members, sizes, instance.speed, instance.list_limit)
        block, owner, position = places(shares, turns)
        turn = np.stack([turns[block, slot, owner] for slot in range(members.shape[1])])
        rank = position
    missed = np.ones(n_shards)
    for slot, where in enumerate(np.minimum(position, instance.miss.shape[1] - 1)):
        missed *= instance.miss[members[:, slot][block], where]
    client = members[block].T
    used = (client < n_clients) & (rank <= np.append(instance.list_limit[:-1], 0)[client])
    shard = np.broadcast_to(np.argsort(block_of_shard, kind="stable"), client.shape)
    order = np.lexsort((rank[used], client[used]))
    result = Assignment(
        schedule=instance.schedule,
        block_of_client=block_of_client,
        block_of_shard=np.asarray(block_of_shard, dtype=np.intp),
        list_shards=np.asarray(shard[used][order]),
        list_segments=np.asarray(turn[used][order]),
        first=np.concatenate(([0], np.cumsum(np.bincount(client[used], minlength=n_clients)))),
        residual_error=residual_error_of(missed, block),
    )
    for array in (result.block_of_client, result.block_of_shard, result.list_shards, result.list_segments):
        array.setflags(write=False)
    return result


def residual_error_of(missed: NDArray[np.float64], block_of_shard: Ints) -> float:
    """Return the residual error for incoherent updates, of shards that change places within their blocks.

    Parameters
    ----------
    missed : ndarray, shape (n_shards,)
        Probability that no holder does the shard in each place.
    block_of_shard : ndarray of int, shape (n_shards,)
        Block of each place.

    Returns
    -------
    float
        ``sum over blocks of m P / (1 - P)``, over the number of shards, with P the mean over a block's m places;
        infinite if nothing of a block can arrive.

    Examples
    --------
    >>> residual_error_of(np.array([0.0, 1.0, 0.5]), np.array([0, 0, 1]))
    1.0
    """
    sizes = np.bincount(block_of_shard)
    held = sizes > 0
    mean = np.bincount(block_of_shard, missed)[held] / sizes[held]
    return float(sizes[held] @ missing_odds(mean, exact=True)) / missed.size
