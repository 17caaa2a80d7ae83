"""What a strategy knows of its nodes, before it asks them to work: who is there, who joins, who comes back."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from fedgc.strategies.nodes.limits import (
    check_stated,
    moved,
    nodes_by_partition,
    stated_for,
    why_without,
)
from fedgc.strategies.nodes.waiting import WaitingStrategy
from fedgc.strategies.nodes.warm_up import NodeFacts, start_seconds, warm_up
from flwr.app import ArrayRecord, Message

from fedgc.deadline import DeadlineRule
from fedgc.round import Planning, RoundState, rejoined

logger = logging.getLogger("flwr.fedgc")


class MeetingStrategy(WaitingStrategy):
    """A strategy that lets nodes introduce themselves, at the start and whenever some join."""

    deadline: DeadlineRule
    start_timeout: float | None
    state: RoundState
    arrayrecord_key: str
    configrecord_key: str

    def _warm_up(self, arrays: ArrayRecord, *, but: Collection[int] = ()) -> None:
        """Let the nodes start and introduce themselves."""
        grid = self._run.grid
        assert grid is not None
        self._run.introduced = start_seconds(grid, self.start_timeout) > 0.0
        heard = warm_up(
            grid,
            arrays,
            n_nodes=int(getattr(self.strategy, "min_available_nodes", 1)),
            timeout=self.start_timeout,
            deadline=self.deadline.initial,
            but=frozenset(but),
            arrayrecord_key=self.arrayrecord_key,
            configrecord_key=self.configrecord_key,
        )
        self._meet(heard, {*grid.get_node_ids(), *heard})

    def _meet(self, heard: Mapping[int, NodeFacts], here: Collection[int]) -> None:
        """Learn what nodes have told of themselves: some may be former ones come back."""
        self._run.partitions.begin(self.nodes, self.planning.nodes or ())
        for node, facts in sorted(heard.items()):
            if node in self.nodes and self.nodes[node].partition != facts.partition:
                del self.nodes[node]  # what it claims now others may have claimed before
            self.nodes[node] = facts
        old_of = self._run.partitions.settle(
            self.nodes, connected={*here, *self._run.heard_late}, answered=heard.keys()
        )
        # One that was asked beside its former self has a history of its own, and keeps the longer one.
        told = self.state.reliability.describe([*old_of, *old_of.values()]) if old_of else []
        rounds = {one.node_id: one.rounds for one in told}
        state = rejoined(self.state, {new: old for new, old in old_of.items() if rounds[new] <= rounds[old]}, here)
        overheads = state.overheads.update({node: facts.overhead for node, facts in heard.items()})
        self.state = replace(state, overheads=overheads)
        if self.planning.constraints is None:
            for node, holder in self._run.partitions.disputed(self.nodes, here).items():
                both = f"nodes {holder} and {node} both say that they are partition {self.nodes[node].partition}"
                self._warn_once(node, f"{both}: they count as two clients")

    def _welcome(self, inner: dict[int, Message], arrays: ArrayRecord, server_round: int) -> list[Message]:
        """Take nodes out of a round that have joined since the start, and return what they are asked instead."""
        if not self.nodes:  # there was no warm-up: nodes are taken as they come
            return []
        if not any(node in self.nodes for node in inner):
            logger.warning("round %d: none of %d nodes was there before", server_round, len(inner))
            self._warm_up(arrays)
        unknown = [node for node in inner if node not in self.nodes]
        if len(unknown) == len(inner) and (self.planning.constraints is None or not self._by_partition):
            return []
        for node in unknown:
            del inner[node]
        return self._run.newcomers.ask(
            [*unknown, *self._replaced(inner)],
            arrays,
            seconds=self.deadline.initial,
            server_round=server_round,
            arrayrecord_key=self.arrayrecord_key,
            configrecord_key=self.configrecord_key,
        )

    def _replaced(self, nodes: Collection[int]) -> list[int]:
        """Return the nodes whose place another has taken while they were gone: it is theirs again once they answer."""
        if self.planning.constraints is None:
            return []
        order = {node: place for place, node in enumerate(self.nodes)}
        disputed = self._run.partitions.disputed(self.nodes, nodes)
        return [node for node, holder in disputed.items() if order[node] < order[holder]]

    def _warn_once(self, node: int, reason: str) -> None:
        if (node, reason) not in self._run.unasked:
            self._run.unasked.add((node, reason))
            logger.warning("%s", reason)

    def _without_limits(self, nodes: Sequence[int]) -> dict[int, str]:
        """Return the nodes whose limits are not known, where those of others are: they may hold nothing. And why."""
        planned = self.planning.nodes
        if self.planning.constraints is None or planned is None:
            return {}
        reason = "the constraints do not name it"
        return {
            node: why_without(node, self.nodes, self._run.partitions.node_of, stated_for(self.planning))
            if self._by_partition
            else reason
            for node in nodes
            if node not in set(planned)
        }

    def _some_planned(self, here: Collection[int]) -> bool:
        """Whether one is there whose limits are known, or there are none."""
        planned = self.planning.nodes
        return self.planning.constraints is None or planned is None or not set(planned).isdisjoint(here)

    def _planning_for(self, here: Collection[int]) -> Planning:
        """Return how rounds are planned while these nodes are there."""
        if not self._limited or not here:
            return self.planning
        if self._by_partition:
            return replace(self.planning, nodes=nodes_by_partition(self.planning, self._run.partitions.node_of))
        if self.planning.nodes is not None:
            return self.planning
        return replace(self.planning, nodes=tuple(sorted(here)))

    def _plan_with(self, here: Collection[int]) -> None:
        """Settle whom limits and times are about in the coming round.

        Raises
        ------
        InfeasibleAssignmentError
            If they could not be met by all that they are stated for, some of which are away at the start.
        """
        before, self.planning = self.planning, self._planning_for(here)
        now = self.planning.nodes
        if before.nodes is None and now is not None and None in now and self.planning.constraints is not None:
            check_stated(self.planning, self.state.shard_examples.size, here)
        if moved(before.nodes, now):  # what it holds may be another's to hold
            self.state = replace(self.state, plan=None)
