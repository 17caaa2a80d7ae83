"""How many examples a client has to expect of its shards, so that it does not begin one that would end too late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.round import RoundState

#: So many holders have to have told of a shard before their word is passed on to another one.
_ENOUGH = 2


def expected_sizes(
    state: RoundState, known_sizes: NDArray[np.float64], shards: NDArray[np.intp], node: int
) -> NDArray[np.float64]:
    """Return the number of examples of each shard of a client's list, NaN where there is none to go by.

    Parameters
    ----------
    state : RoundState
        What is known before the round.
    known_sizes : ndarray, shape (n_shards,)
        Number of examples of each shard, NaN where the server was not told.
    shards : ndarray of int, shape (n_assigned,)
        The client's list.
    node : int
        Flower's id of its node.

    Notes
    -----
    Where sizes are learnt, a node is told what it has last said itself, since by that it has taken its time, and else
    what is believed once two holders have spoken. A single other one could keep a shard from being begun by calling it
    huge, and nobody who never begins it could say otherwise.

    Examples
    --------
    >>> state = RoundState(np.array([8.0, 9.0, 7.0]), claims={0: {1: 8.0}, 1: {1: 9.0, 2: 9.0}, 2: {5: 7.0}})
    >>> expected_sizes(state, np.full(3, np.nan), np.array([2, 1, 0]), node=5)
    array([ 7.,  9., nan])
    """
    expected = known_sizes[shards].copy()
    for place in np.flatnonzero(np.isnan(expected)).tolist():
        shard = int(shards[place])
        said = state.claims.get(shard, {})
        if node in said:
            expected[place] = said[node]
        elif len(said) >= _ENOUGH:
            expected[place] = state.shard_examples[shard]
    return expected
