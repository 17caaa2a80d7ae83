"""Whom limits and times are about: they are stated for clients by number, and nodes have to be found for these."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from fedgc.strategies.nodes.warm_up import NodeFacts

from fedgc.assignment.constraints import residency_rules
from fedgc.assignment.feasibility import check_each
from fedgc.assignment.instance import make_instance
from fedgc.round import Planning, first_load


def stated_for(planning: Planning) -> int | None:
    """Return for how many clients limits, domains and times are stated; None if that is open, with residency alone.

    Raises
    ------
    ValueError
        If they are about different numbers of clients.

    Examples
    --------
    >>> from fedgc.assignment import AssignmentConstraints
    >>> from fedgc.decoders import FixedDecoder
    >>> limits = AssignmentConstraints(storage=[4, 4, 2])
    >>> stated_for(Planning(load=1, decoder=FixedDecoder(), constraints=limits))
    3
    """
    limits, timing = planning.constraints, planning.timing
    given = () if limits is None else (limits.storage, limits.computation, limits.domain)
    numbers = {len(np.asarray(value)) for value in given if value is not None}
    if planning.failure_domains is not None:
        numbers.add(planning.failure_domains.of_client.size)
    if timing is not None:
        seconds = 1.0 if planning.deadline is None else planning.deadline.initial
        numbers.add(int(np.size(timing.straggle_prob(seconds, 1.0))))
    if len(numbers) > 1:
        named = " and ".join(
            name for name in ("timing", "constraints", "failure_domains") if getattr(planning, name) is not None
        )
        raise ValueError(f"{named} must be about the same clients; got {sorted(numbers)} of them")
    return numbers.pop() if numbers else None


def least_stated_for(planning: Planning) -> int:
    """Return how many clients there are at least, by what limits and times are stated for."""
    number = stated_for(planning)
    if number is not None or planning.constraints is None:
        return number or 0
    rules = residency_rules(planning.constraints.residency)
    return max((int(client) + 1 for _, clients in rules for client in clients), default=0)


def nodes_by_partition(planning: Planning, node_of: Mapping[int, int]) -> tuple[int | None, ...]:
    """Return the node of each client that limits and times are stated for, by its partition; None where it is away.

    With residency alone a client that it does not name may hold all other shards, and there may be any number of them:
    they come behind those that it names, in the order of `node_of`.

    Examples
    --------
    >>> from fedgc.assignment import AssignmentConstraints
    >>> from fedgc.decoders import FixedDecoder
    >>> planning = Planning(load=1, decoder=FixedDecoder(), constraints=AssignmentConstraints(residency={0: [2]}))
    >>> nodes_by_partition(planning, {10**12: 7, 2: 8, 0: 9})
    (9, None, 8, 7)
    """
    least = least_stated_for(planning)
    named = [node_of.get(partition) for partition in range(least)]
    if stated_for(planning) is not None:
        return tuple(named)
    return (*named, *(node for partition, node in node_of.items() if partition >= least))


def why_without(node: int, told: Mapping[int, NodeFacts], node_of: Mapping[int, int], n_stated: int | None) -> str:
    """Return why no limits are known of a node, where they are stated by partition."""
    partition = told[node].partition if node in told else None
    if partition is None:
        return "the constraints do not name it: they are about partitions, and it tells none"
    holder = node_of.get(partition)
    if holder is not None and holder != node:
        return f"nodes {holder} and {node} both say that they are partition {partition}, and {holder} was before"
    of = "from 0 on" if n_stated is None else f"0 to {n_stated - 1}"
    return f"the constraints do not name it: they are about partitions {of}, and it says that it is {partition}"


def check_stated(planning: Planning, n_shards: int, here: Collection[int]) -> None:
    """Raise InfeasibleAssignmentError if limits could not be met by all clients that they are stated for.

    While some of these are away, a shard may have fewer holders than it should. That limits allow no more, whoever may
    come, is told before the first round all the same, and not when the last one has come.
    """
    n_clients = stated_for(planning) or max(least_stated_for(planning), len(here))
    copies = max(min(first_load(planning.load), n_clients), -(-n_clients // n_shards))
    check_each(make_instance(np.ones((n_clients, 2)), n_shards, copies, planning.schedule, planning.constraints))


def moved(before: Collection[int | None] | None, now: Collection[int | None] | None) -> bool:
    """Return whether a node has other limits than before.

    Examples
    --------
    >>> moved((7, None, 8), (7, 9, 8)), moved((7, None, 8), (None, 7, 8))
    (False, True)
    """
    places = {node: place for place, node in enumerate(before or ())}
    return any(node is not None and places.get(node, place) != place for place, node in enumerate(now or ()))
