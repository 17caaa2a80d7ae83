"""Proofs that an instance has no assignment: shard copies as a flow, whatever the blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from fedgc.assignment.instance import Instance

Ints = NDArray[np.intp]

#: A flow through more edges than this takes too long.
_MOST_EDGES = 3_000_000


def copies_have_no_place(instance: Instance) -> bool:
    """Return whether there is provably no place for all copies of the shards, and so no assignment.

    Notes
    -----
    Every shard has at least as many holders as a block has members, different clients that may hold it, of different
    domains. As a maximum flow: from each residency class, ``least x its shards`` copies, at most one of each shard to a
    domain and to a client, and at most as many to a client as the largest block that it can be in has shards. If not
    all copies find a place there is no assignment; with one holder the converse holds too. It is False where nothing is
    proved, or the instance is too large to try.
    """
    need, least = instance.class_sizes, instance.least
    wanted = np.flatnonzero(need)
    everyone = np.arange(instance.n_clients)
    allowed = [everyone if clients is None else clients for clients in (instance.allowed[c] for c in wanted)]
    if sum(clients.size for clients in allowed) > _MOST_EDGES:
        return False
    room = _largest_block(instance)
    client = np.concatenate(allowed)
    of_class = np.repeat(np.arange(wanted.size), [clients.size for clients in allowed])
    # Nodes: source, classes, classes in a domain, clients, sink.
    domain = everyone if instance.constraints.domain is None or least == 1 else instance.domain[:-1]
    key, place = np.unique(of_class * (instance.n_clients + 1) + domain[client], return_inverse=True)
    inner = 1 + wanted.size
    first = inner + key.size
    sink = first + instance.n_clients
    class_of_key = key // (instance.n_clients + 1)
    tail = np.concatenate([np.zeros(wanted.size, dtype=np.intp), 1 + class_of_key, inner + place, first + everyone])
    head = np.concatenate(
        [1 + np.arange(wanted.size), inner + np.arange(key.size), first + client, everyone * 0 + sink]
    )
    copies = np.concatenate([least * need[wanted], need[wanted][class_of_key], need[wanted][of_class], room])
    graph = sparse.csr_array((copies.astype(np.int32), (tail, head)), shape=(sink + 1, sink + 1))
    return int(csgraph.maximum_flow(graph, 0, sink).flow_value) < least * instance.n_shards


def _largest_block(instance: Instance) -> Ints:
    """Return the most shards of a block that each client can be in: others must have room too, (n_clients,)."""
    own, others = instance.limit[:-1], instance.least - 1
    if instance.least == 1 and instance.schedule == "work-list":
        # What several compute together, each could compute its part of alone.
        own = np.minimum(own, instance.list_limit[:-1])
    if others == 0:
        return own
    if instance.constraints.domain is None:
        order = np.sort(own)[::-1]
        # Who is among the first needs the one after them as well.
        partner = np.where(own >= order[others], order[others], order[others - 1])
        return np.asarray(np.minimum(own, partner))
    best = np.zeros(int(instance.domain.max()) + 1, dtype=np.intp)
    np.maximum.at(best, instance.domain[:-1], own)
    order = np.argsort(-best, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    # The best of each other domain.
    partner = np.where(rank[instance.domain[:-1]] < others, best[order[others]], best[order[others - 1]])
    return np.asarray(np.minimum(own, partner))
