"""Which node is which partition: each is one node's at a time, whoever else claims it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

from fedgc.strategies.nodes.warm_up import NodeFacts

logger = logging.getLogger("flwr.fedgc")


class Partitions:
    """Keeps which node each partition is taken to be.

    Notes
    -----
    A device that starts again without its key gets another node id, so a node is believed that claims the partition of
    one that has gone. Of one that is still connected it is not: a straggler is silent too, and whoever claims its
    partition would get what may live there only. Silence is no reason at all, since a runtime drops a dead node within
    about a minute, and then it has gone. If the former node answers after all, it gets its place back.

    Examples
    --------
    >>> partitions, told = Partitions(), {7: NodeFacts(0.1, partition=3), 9: NodeFacts(0.1, partition=3)}
    >>> partitions.settle(told, connected=[7, 9]), partitions.node_of
    ({}, {3: 7})
    >>> partitions.settle(told, connected=[9]), partitions.node_of
    ({9: 7}, {3: 9})
    """

    def __init__(self) -> None:
        self._node_of: dict[int, int] = {}
        self._begun = False

    @property
    def node_of(self) -> Mapping[int, int]:
        """The node by partition, in the order in which partitions were first claimed."""
        return self._node_of

    def begin(self, told: Mapping[int, NodeFacts], planned: Iterable[int | None]) -> None:
        """Go on from what is known when a run begins, or do nothing if it has begun.

        Parameters
        ----------
        told : mapping of int to NodeFacts
            What nodes have told, by id, in the order in which they became known.
        planned : iterable of int or None
            The nodes that it took for the partitions which they tell; of others the last that told it is.
        """
        if self._begun:
            return
        self._begun = True
        for node in (*planned, *reversed(list(told))):
            partition = None if node is None or node not in told else told[node].partition
            if node is not None and partition is not None:
                self._node_of.setdefault(partition, node)

    def settle(
        self,
        told: Mapping[int, NodeFacts],
        *,
        connected: Collection[int],
        answered: Collection[int] = (),
    ) -> dict[int, int]:
        """Learn who is there, and return which nodes take the place of a former one: the former id by the new one.

        Parameters
        ----------
        told : mapping of int to NodeFacts
            What nodes have told, by id, in the order in which they became known.
        connected : collection of int
            Nodes that are there, or have been heard of since they left.
        answered : collection of int
            Nodes that have just introduced themselves.
        """
        claims: dict[int, list[int]] = {}
        for node, facts in told.items():
            if facts.partition is not None:
                claims.setdefault(facts.partition, []).append(node)
        old_of: dict[int, int] = {}
        for partition in [partition for partition in self._node_of if partition not in claims]:
            del self._node_of[partition]
        for partition, nodes in claims.items():
            there = [node for node in nodes if node in connected]
            former = self._node_of.get(partition)
            if former not in nodes:
                self._node_of[partition] = (there or nodes)[0]
                continue
            before = [node for node in nodes[: nodes.index(former)] if node in there and node in answered]
            if before:
                logger.warning(
                    "node %d is partition %d again, and node %d is not any more: it said so before, and answers",
                    before[0],
                    partition,
                    former,
                )
                self._node_of[partition] = before[0]
            elif former not in there and there:
                logger.warning(
                    "node %d is node %d come back: both say that they are partition %d, and node %d has gone",
                    there[0], former, partition, former,
                )  # fmt: skip
                self._node_of[partition] = there[0]
                old_of[there[0]] = former
        return old_of

    def disputed(self, told: Mapping[int, NodeFacts], connected: Collection[int]) -> dict[int, int]:
        """Return whom the partition is taken to be that a node claims in vain, by the id of each that is there."""
        holders = {
            node: self._node_of.get(facts.partition) for node, facts in told.items() if facts.partition is not None
        }
        return {
            node: holder
            for node, holder in holders.items()
            if holder is not None and holder != node and {node, holder} <= set(connected)
        }
