"""Assign without a code: every shard has one holder."""

from __future__ import annotations


def own_part(client: int, n_clients: int, n_shards: int) -> range:
    """Return the shards of a client without a code: consecutive ones, as many as its neighbours' but for one.

    Examples
    --------
    >>> [list(own_part(client, 3, 5)) for client in range(3)]
    [[0], [1, 2], [3, 4]]
    """
    return range(client * n_shards // n_clients, (client + 1) * n_shards // n_clients)
